"""Bad records of every kind that a pipeline must survive, made from good ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson

from ferryline.deploy.feed.datasets import Document

OVERSIZED_BYTES = 5 * 1024 * 1024
FAULT_HEADER = "ferry.fault"
"""Kafka header of a bad record: its kind, so that a test can tell what it sent."""


def _broken_json(document: Document) -> bytes:
    return orjson.dumps(document)[:-2]


def _missing_field(document: Document) -> bytes:
    return orjson.dumps({name: value for name, value in document.items() if name != "x"})


def _too_few(document: Document) -> bytes:
    return _with_features(document, lambda items: items[:-1])


def _too_many(document: Document) -> bytes:
    return _with_features(document, lambda items: [*items, items[-1]])


def _string_for_number(document: Document) -> bytes:
    return _with_features(document, lambda items: [_renamed(items[0], "seven"), *items[1:]])


def _not_a_number(document: Document) -> bytes:
    return _with_features(document, lambda items: [_renamed(items[0], float("nan")), *items[1:]])


def _oversized(document: Document) -> bytes:
    return orjson.dumps({**document, "padding": "x" * OVERSIZED_BYTES})


_KINDS: dict[str, Callable[[Document], bytes]] = {
    "broken_json": _broken_json,
    "missing_field": _missing_field,
    "too_few_features": _too_few,
    "too_many_features": _too_many,
    "string_for_number": _string_for_number,
    "nan": _not_a_number,
    "oversized": _oversized,
}


def fault_kinds(document: Document) -> tuple[str, ...]:
    """The kinds that make a record like `document` bad; further keys of an object do no harm."""
    named = isinstance(document["x"], dict)
    return tuple(kind for kind in _KINDS if not (named and kind == "too_many_features"))


def spoil(document: Document, kind: str) -> bytes:
    """The bytes of `document` with a fault of `kind` in them."""
    return _KINDS[kind](document)


def _with_features(document: Document, change: Callable[[list[Any]], list[Any]]) -> bytes:
    features = document["x"]
    if isinstance(features, dict):
        spoilt: Any = dict(change(list(features.items())))
    else:
        spoilt = change(features)
    # the standard library writes NaN, as careless producers do; orjson would write null
    return json.dumps({**document, "x": spoilt}).encode()


def _renamed(item: Any, value: Any) -> Any:
    """`value` in the place of an array's item, or of an object's (name, value)."""
    return (item[0], value) if isinstance(item, tuple) else value
