"""JSON records whose features are one array: its numbers become doubles without a Python object for each.

simdjson reads a record and writes an array of numbers as doubles in less than half of the time that making
and packing Python's numbers takes. It joins nested arrays and skips a byte order mark, so only a text with a
single bracket that begins with a brace is read this way; any other goes the way of all documents. Of a field
that is there twice it takes the first and orjson the last: such a document has no agreed meaning (RFC 8259,
section 4).
"""

from __future__ import annotations

from collections.abc import Callable

import simdjson

from ferryline.streams.documents import Opened, SurpriseError
from ferryline.streams.pipeline import SourceSpec

_BRACE = ord("{")


class ArrayOpener:
    """Opens records with one array, that of the features.

    Args:
        source: what a record holds.
        otherwise: opens all other records.
    """

    def __init__(self, source: SourceSpec, otherwise: Callable[[bytes], Opened]) -> None:
        self._parse = simdjson.Parser().parse
        self._field = source.features.field
        self._width = source.features.width
        self._otherwise = otherwise

    def __call__(self, value: bytes) -> Opened:
        """The document and its numbers; the document is of use until the next one is opened.

        Raises:
            ValueError, TypeError, KeyError, AttributeError, RuntimeError: it is not as expected.
        """
        if value.count(b"[") != 1 or value[0] != _BRACE:
            return self._otherwise(value)
        document = self._parse(value)
        if type(document) is not simdjson.Object:
            raise SurpriseError
        numbers = document[self._field]
        if type(numbers) is not simdjson.Array or len(numbers) != self._width:
            raise SurpriseError
        return document, numbers.as_buffer(of_type="d")
