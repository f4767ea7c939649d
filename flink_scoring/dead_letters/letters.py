"""A record of a dead-letter topic: where it lies, and what it says where it is a letter."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ferryline.streams.deadletters import DeadLetter, decode_dead_letter
from ferryline.streams.errors import MalformedRecordError
from ferryline.streams.event_time import nearest_moment
from ferryline.streams.rejections import RejectReason


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """One record of the dead-letter topic.

    Attributes:
        partition: of the dead-letter topic.
        offset: in that partition.
        written_at: when it was written there, by its Kafka timestamp; see `nearest_moment`.
        letter: what it says; None where it is no letter.
        fault: why it is none.
    """

    partition: int
    offset: int
    written_at: datetime
    letter: DeadLetter | None
    fault: str = ""

    @property
    def place(self) -> str:
        """Its name on the command line."""
        return f"{self.partition}:{self.offset}"


def store_letter(message: Any) -> StoredLetter:
    """The letter in a message of kafka-python."""
    letter, fault = None, ""
    try:
        letter = decode_dead_letter(message.key, message.value, message.headers)
    except MalformedRecordError as error:
        fault = str(error)
    written_at = nearest_moment(max(message.timestamp, 0))
    return StoredLetter(message.partition, message.offset, written_at, letter, fault)


def value_left_behind(letter: DeadLetter) -> bool:
    """Whether the record had a value that was too large for the dead-letter topic.

    The scoring job leaves such a value out; only a tombstone had none to begin with.
    """
    return letter.value is None and letter.reason != RejectReason.NO_VALUE
