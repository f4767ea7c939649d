"""What lies in a store, sorted by what its keys say it is: for whoever walks the whole registry."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from ferryline.registry.garbage import COLLECTED_SUFFIX, MARK_SUFFIX, MARKS, digests_below, is_hex_digest
from ferryline.registry.keys import BLOBS, HINT
from ferryline.registry.log import SUFFIX, AppendLog
from ferryline.registry.names import is_name
from ferryline.registry.refusals import is_record
from ferryline.registry.stores.base import Listed

RUNS = "garbage/runs/"

K = TypeVar("K")

_RUN = re.compile(rf"{RUNS}[0-9]{{10}}(\.done)?\.json")


@dataclass(slots=True)
class Contents:
    """Every object of a registry in its place. `foreign` are objects that no part of a registry writes."""

    files: dict[str, Listed] = field(default_factory=dict)
    versions: dict[str, dict[int, Listed]] = field(default_factory=lambda: defaultdict(dict))
    channels: dict[tuple[str, str], dict[int, Listed]] = field(default_factory=lambda: defaultdict(dict))
    refusals: dict[str, list[Listed]] = field(default_factory=lambda: defaultdict(list))
    heartbeats: dict[str, Listed] = field(default_factory=dict)
    marks: dict[str, Listed] = field(default_factory=dict)
    collected: dict[str, Listed] = field(default_factory=dict)
    runs: list[Listed] = field(default_factory=list)
    probes: list[Listed] = field(default_factory=list)
    jobs: list[Listed] = field(default_factory=list)
    hint: Listed | None = None
    foreign: list[Listed] = field(default_factory=list)

    @property
    def models(self) -> list[str]:
        """The models that have a version or a channel."""
        return sorted({*self.versions, *(model for model, _ in self.channels)})


def sort_contents(listing: Iterable[Listed]) -> Contents:
    """Put every line of a listing of a whole store, or a part of it, in its place."""
    contents, about_files = Contents(), []
    for listed in listing:
        area, _, rest = listed.key.partition("/")
        if listed.key == HINT:
            contents.hint = listed
        elif listed.key.startswith(MARKS):
            about_files.append(listed)
        elif not _sorted(contents, listed, area, rest):
            contents.foreign.append(listed)
    contents.marks.update(digests_below(about_files, MARK_SUFFIX))
    contents.collected.update(digests_below(about_files, COLLECTED_SUFFIX))
    known = {listed.key for found in (contents.marks, contents.collected) for listed in found.values()}
    contents.foreign.extend(listed for listed in about_files if listed.key not in known)
    return contents


def _sorted(contents: Contents, listed: Listed, area: str, rest: str) -> bool:
    """Whether the object has a place; it is put there."""
    if area == "models":
        return _sorted_of_model(contents, listed, rest.split("/"))
    if area == "blobs":
        name = listed.key.removeprefix(BLOBS)
        return is_hex_digest(name) and _kept(contents.files, f"sha256:{name}", listed)
    if area == "consumers":
        name = rest.removesuffix(SUFFIX)
        return name + SUFFIX == rest and is_name(name) and _kept(contents.heartbeats, name, listed)
    kind = {"doctor": contents.probes, "jobs": contents.jobs}.get(area)
    if kind is None and _RUN.fullmatch(listed.key):
        kind = contents.runs
    if kind is not None:
        kind.append(listed)
    return kind is not None


def _sorted_of_model(contents: Contents, listed: Listed, parts: list[str]) -> bool:
    match parts:
        case [model, "versions", name] if is_name(model) and (number := _number(name)):
            return _kept(contents.versions[model], number, listed)
        case [model, "channels", channel, name] if (
            is_name(model) and is_name(channel) and (number := _number(name))
        ):
            return _kept(contents.channels[model, channel], number, listed)
        case [model, "refusals", name] if is_name(model) and is_record(name):
            contents.refusals[model].append(listed)
            return True
    return False


def _number(name: str) -> int:
    """The number of a log's entry, 0 where `name` is none."""
    stem = name.removesuffix(SUFFIX)
    return int(stem) if name == stem + SUFFIX and AppendLog.key_form(stem) else 0


def _kept(place: dict[K, Listed], name: K, listed: Listed) -> bool:
    place[name] = listed
    return True
