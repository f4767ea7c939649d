"""Why a record was not accepted: the machine-readable reason and a sentence for a person."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class RejectReason(StrEnum):
    """Every reason there is; dead letters and metrics carry these words."""

    NO_VALUE = "no_value"
    RECORD_TOO_LARGE = "record_too_large"
    INVALID_JSON = "invalid_json"
    INVALID_AVRO = "invalid_avro"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    WRONG_LENGTH = "wrong_length"
    NOT_A_NUMBER = "not_a_number"
    NOT_FINITE = "not_finite"
    OUT_OF_RANGE = "out_of_range"
    BAD_LABEL = "bad_label"
    BAD_EVENT_TIME = "bad_event_time"
    UNLEARNABLE = "unlearnable"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record of a batch that was not accepted: where it was, and why."""

    index: int
    reason: RejectReason
    detail: str


class RecordFault(Exception):  # noqa: N818 - a finding about one record that never leaves the decoder
    """A record breaks the contract of its source."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def at(self, index: int) -> Rejection:
        """The finding, with the record's place in its batch."""
        return Rejection(index, self.reason, self.detail)
