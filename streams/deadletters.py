"""Dead letters: key and value are the original bytes, and Kafka headers say why they lie there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from ferryline.streams.errors import MalformedRecordError
from ferryline.streams.event_time import parse_event_time

Header = tuple[str, bytes | None]

REASON = "ferry.reason"
DETAIL = "ferry.detail"
TOPIC = "ferry.topic"
PARTITION = "ferry.partition"
OFFSET = "ferry.offset"
PIPELINE = "ferry.pipeline"
TIMESTAMP = "ferry.timestamp"
"""The record's own Kafka timestamp, `YYYY-mm-dd HH:MM:SS.fff` in UTC; letters of older jobs lack it."""
REPLAYED = "ferry.replayed"
"""On a record that was replayed: how often. As one of its own headers it comes back if that dies again."""

_MOST_DIGITS = 9  # anyone may write this header, and a number of thousands of digits is refused by Python

_REQUIRED = frozenset({REASON, DETAIL, TOPIC, PARTITION, OFFSET, PIPELINE})
_OURS = _REQUIRED | {TIMESTAMP}


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be processed, where it came from, and why.

    `headers` are those the record had in its own topic, and `timestamp` its moment there, to the millisecond.
    """

    key: bytes | None
    value: bytes | None
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    pipeline: str
    headers: tuple[Header, ...] = ()
    timestamp: datetime | None = None

    @property
    def timestamp_ms(self) -> int | None:
        """The record's own moment as Kafka writes it: milliseconds since 1970."""
        return None if self.timestamp is None else round(self.timestamp.timestamp() * 1000)

    @property
    def replays(self) -> int:
        """How often this record was replayed before it came here."""
        counts = [text or b"" for name, text in self.headers if name == REPLAYED]
        last = counts[-1] if counts else b""
        return int(last) if last.isdigit() and len(last) <= _MOST_DIGITS else 0


def replay_headers(letter: DeadLetter) -> list[Header]:
    """The headers of the record when it is sent back: its own, with one more replay counted."""
    kept = [header for header in letter.headers if header[0] != REPLAYED]
    return [*kept, (REPLAYED, str(letter.replays + 1).encode())]


def dead_letter_headers(letter: DeadLetter) -> list[Header]:
    """The headers to write with the letter's key and value: the record's own first, then ours.

    A letter that is processed again and fails again keeps only the newest reason.
    """
    ours = {
        REASON: letter.reason,
        DETAIL: letter.detail,
        TOPIC: letter.topic,
        PARTITION: str(letter.partition),
        OFFSET: str(letter.offset),
        PIPELINE: letter.pipeline,
    }
    if letter.timestamp is not None:
        moment = letter.timestamp.astimezone(UTC).replace(tzinfo=None)
        ours[TIMESTAMP] = moment.isoformat(sep=" ", timespec="milliseconds")
    kept = [header for header in letter.headers if header[0] not in _OURS]
    return [*kept, *((name, text.encode()) for name, text in ours.items())]


def decode_dead_letter(key: bytes | None, value: bytes | None, headers: Iterable[Header]) -> DeadLetter:
    """Read a record of a dead-letter topic.

    Raises:
        MalformedRecordError: it lacks our headers, or one of them is not of its form.
    """
    headers = tuple(headers)
    found = {name: text for name, text in headers if name in _OURS}
    try:
        words = {name: (found[name] or b"").decode() for name in _REQUIRED}
        return DeadLetter(
            key=key,
            value=value,
            reason=words[REASON],
            detail=words[DETAIL],
            topic=words[TOPIC],
            partition=int(words[PARTITION]),
            offset=int(words[OFFSET]),
            pipeline=words[PIPELINE],
            headers=tuple(header for header in headers if header[0] not in _OURS),
            timestamp=parse_event_time((found.get(TIMESTAMP) or b"").decode()),
        )
    except KeyError as error:
        raise MalformedRecordError(f"no dead letter: the header {error.args[0]} is missing") from error
    except ValueError as error:
        raise MalformedRecordError(f"no dead letter: {error}") from error
