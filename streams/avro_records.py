"""Records written as Avro, one datum to a value and the schema known beforehand."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import orjson

from ferryline.streams.documents import DocumentFormat
from ferryline.streams.pipeline import SourceSpec
from ferryline.streams.rejections import RecordFault, RejectReason

# Confluent's wire format: a zero byte and four of the schema's id, which names what the pipeline knows
_MAGIC = 0
_HEADER = 5


class AvroFormat(DocumentFormat):
    """Avro's binary encoding of the pipeline's schema.

    Args:
        source: its `schema` is the schema's text; `registry_header` says that Confluent's header comes first.
    """

    def __init__(self, source: SourceSpec) -> None:
        self._schema = fastavro.parse_schema(orjson.loads(source.avro_schema or "null"))
        self._start = _HEADER if source.registry_header else 0

    def parse(self, value: bytes, /) -> Any:
        """The document; raises ValueError where the value is none, or more than one."""
        if self._start and (len(value) < _HEADER or value[0] != _MAGIC):
            raise ValueError("no schema registry header, which is a zero byte and four of the schema's id")
        stream = io.BytesIO(value)
        stream.seek(self._start)
        try:
            document = fastavro.schemaless_reader(stream, self._schema, None)
        except Exception as error:  # fastavro's errors share no base class
            raise ValueError(_meaning(error)) from error
        if stream.tell() != len(value):
            raise ValueError(f"{len(value) - stream.tell()} bytes follow the datum")
        return document

    def explain(self, value: bytes) -> RecordFault:
        """Why `parse` refused a value."""
        try:
            self.parse(value)
        except ValueError as error:
            return RecordFault(RejectReason.INVALID_AVRO, str(error))
        raise ValueError("the value is Avro")

    def may_hold_booleans(self, value: bytes) -> bool:  # noqa: ARG002 - it cannot be told from the bytes
        """Always: in the bytes a boolean looks like anything else."""
        return True


def _meaning(error: Exception) -> str:
    # where the value ends too soon, fastavro says so by nothing at all, or by an address in memory
    text = str(error)
    return text if text and "object at 0x" not in text else "the value ends too soon"
