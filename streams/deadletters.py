"""Dead letters: key and value are the original bytes, and Kafka headers say why they lie there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from streams.errors import MalformedRecordError

Header = tuple[str, bytes | None]

REASON = "ferry.reason"
DETAIL = "ferry.detail"
TOPIC = "ferry.topic"
PARTITION = "ferry.partition"
OFFSET = "ferry.offset"
PIPELINE = "ferry.pipeline"

_OURS = frozenset({REASON, DETAIL, TOPIC, PARTITION, OFFSET, PIPELINE})


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be processed, where it came from, and why.

    `headers` are those the record had in its own topic.
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
        words = {name: (found[name] or b"").decode() for name in _OURS}
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
        )
    except KeyError as error:
        raise MalformedRecordError(f"no dead letter: the header {error.args[0]} is missing") from error
    except ValueError as error:
        raise MalformedRecordError(f"no dead letter: {error}") from error
