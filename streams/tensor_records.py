"""Records that are one raw tensor: little-endian float32 numbers and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ferryline.streams.decoded import DecodedBatch, LabelUse
from ferryline.streams.documents import require_value, without_rows
from ferryline.streams.pipeline import SourceSpec
from ferryline.streams.rejections import RecordFault, Rejection, RejectReason

_NUMBER = np.dtype("<f4")


class TensorDecoder:
    """Decodes values of exactly 4 bytes for each feature, in the order of the model.

    They hold no label and no time: the label is None, the time is Kafka's.
    """

    def __init__(self, source: SourceSpec) -> None:
        self._source = source
        self._bytes = _NUMBER.itemsize * source.features.width

    def decode_batch(self, values: Sequence[bytes | None], *, label: LabelUse) -> DecodedBatch:
        """Decode a batch; see `BatchDecoder`. Where labels are required, every record is rejected."""
        accepted: list[int] = []
        rejections: list[Rejection] = []
        for index, value in enumerate(values):
            if value is None or len(value) != self._bytes or label is LabelUse.REQUIRED:
                rejections.append(self._fault(value).at(index))
            else:
                accepted.append(index)
        return without_rows(self._batch(values, accepted, rejections), self._source)

    def _batch(
        self, values: Sequence[bytes | None], accepted: list[int], rejections: list[Rejection]
    ) -> DecodedBatch:
        numbers = np.frombuffer(b"".join(values[index] or b"" for index in accepted), dtype=_NUMBER)
        rows = numbers.astype(np.float64).reshape(-1, self._source.features.width)
        nothing = [None] * len(accepted)
        return DecodedBatch(rows, np.asarray(accepted, dtype=np.int64), [*nothing], [*nothing], rejections)

    def _fault(self, value: bytes | None) -> RecordFault:
        try:
            length = len(require_value(value, self._source))
        except RecordFault as fault:
            return fault
        if length == self._bytes:
            return RecordFault(RejectReason.MISSING_FIELD, "a raw tensor has no label")
        width = self._source.features.width
        return RecordFault(
            RejectReason.WRONG_LENGTH, f"{length} bytes, {self._bytes} expected for {width} float32 numbers"
        )
