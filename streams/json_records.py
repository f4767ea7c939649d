"""Records written as JSON."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from ferryline.streams.documents import AsExpected, DocumentFormat, Opened
from ferryline.streams.json_arrays import ArrayOpener
from ferryline.streams.json_faults import explain_invalid_json
from ferryline.streams.pipeline import ArrayFeatures, SourceSpec
from ferryline.streams.rejections import RecordFault


class JsonFormat(DocumentFormat):
    """One JSON object to a value, in UTF-8 (RFC 8259)."""

    # orjson's own function, without a Python call around it
    parse = staticmethod(orjson.loads)

    def opener(self, source: SourceSpec) -> Callable[[bytes], Opened]:
        """What opens a record that is as `source` expects: a shorter way where its features are an array."""
        otherwise = AsExpected(source, self)
        return ArrayOpener(source, otherwise) if isinstance(source.features, ArrayFeatures) else otherwise

    def explain(self, value: bytes) -> RecordFault:
        """Why `parse` refused a value."""
        try:
            orjson.loads(value)
        except orjson.JSONDecodeError as error:
            return explain_invalid_json(value, str(error))
        raise ValueError("the value is JSON")

    def may_hold_booleans(self, value: bytes) -> bool:
        """Whether a boolean's word is anywhere in the text: JSON has no other spelling of them."""
        # one letter of both is found or missed in no time
        return b"e" in value and (b"true" in value or b"false" in value)
