"""From the bytes of a batch of records to a matrix, labels and times; a bad record spoils only itself."""

from __future__ import annotations

from collections.abc import Sequence

from ferryline.streams.decoded import BatchDecoder, DecodedBatch, LabelUse
from ferryline.streams.documents import DocumentDecoder
from ferryline.streams.json_records import JsonFormat
from ferryline.streams.pipeline import RecordFormat, SourceSpec
from ferryline.streams.rejections import Rejection, RejectReason
from ferryline.streams.tensor_records import TensorDecoder

__all__ = ["DecodedBatch", "LabelUse", "RecordDecoder", "RejectReason", "Rejection"]


class RecordDecoder:
    """Decodes the records that `source` describes."""

    def __init__(self, source: SourceSpec) -> None:
        self._decoder = _decoder(source)

    def decode_batch(
        self, values: Sequence[bytes | None], *, label: LabelUse = LabelUse.REQUIRED
    ) -> DecodedBatch:
        """Decode the values of a batch of records; nothing in them raises.

        Args:
            values: the records' values as Kafka gave them; None is a tombstone.
            label: what becomes of a record whose label is missing or no class.
        """
        return self._decoder.decode_batch(values, label=label)


def _decoder(source: SourceSpec) -> BatchDecoder:
    if source.format is RecordFormat.FLOAT32:
        return TensorDecoder(source)
    if source.format is RecordFormat.AVRO:
        from ferryline.streams.avro_records import (
            AvroFormat,  # fastavro is there where a pipeline asks for it
        )

        return DocumentDecoder(source, AvroFormat(source))
    return DocumentDecoder(source, JsonFormat())
