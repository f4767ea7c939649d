"""What the timeline writes into the registry's store, and where.

    jobs/<pipeline>/timelines/<log>/<n, 10 digits>.json    an entry per switch; n = 1, 2, 3 …
    jobs/<pipeline>/reserved/<attempt>.json                how far an attempt may have come; rewritten

A log is named by topic, topic id and partition: the offsets of a topic that was made again begin anew.
"""

from __future__ import annotations

import re
from typing import ClassVar

from pydantic import AwareDatetime, Field

from ferryline.flink_scoring.timeline.rules import Assigned, Switch
from ferryline.registry.documents import Digest
from ferryline.registry.keys import JOBS
from ferryline.registry.schema import Document, Record

LONGEST_TOPIC = 180
"""Characters of a topic's name that a log's name takes; the topic's id tells the rest apart."""


class TimelineEntry(Document):
    """That from `offset` of a partition on, a generation of a channel scores."""

    kind: ClassVar[str] = "timeline entry"

    pipeline: str
    topic: str
    partition: int = Field(ge=0)
    number: int = Field(ge=1)
    offset: int = Field(ge=0)
    channel: str
    generation: int = Field(ge=1)
    version: int = Field(ge=1)
    digest_of_file: Digest
    attempt: str
    at: AwareDatetime

    @property
    def switch(self) -> Switch:
        """What the rules know of it."""
        by = Assigned(self.channel, self.generation, self.version, self.digest_of_file)
        return Switch(self.number, self.offset, by)


class Reserved(Record):
    """Of one log: every offset that was scored is below `until`; `newest` is the log's newest entry then."""

    until: int = Field(ge=0)
    newest: int = Field(ge=1)


class Reservations(Document):
    """How far one attempt of one subtask may have come, by log."""

    kind: ClassVar[str] = "reservation"

    attempt: str
    logs: dict[str, Reserved]


def log_name(topic: str, topic_id: str, partition: int) -> str:
    """The name of a partition's log.

    Args:
        topic: its name.
        topic_id: 32 hexadecimal digits, or nothing where the broker gives none.
        partition: its number.
    """
    parts = [topic[:LONGEST_TOPIC], topic_id, str(partition)]
    # an object's name begins with a letter, a digit or an underscore, and a topic's may not
    return re.sub(r"^[^A-Za-z0-9]", "_", "-".join(part for part in parts if part))


def log_prefix(pipeline: str, name: str) -> str:
    """The prefix of a partition's entries."""
    return f"{JOBS}{pipeline}/timelines/{name}/"


def reservations_prefix(pipeline: str) -> str:
    """The prefix of the reservations of a pipeline's attempts."""
    return f"{JOBS}{pipeline}/reserved/"


def reservations_key(pipeline: str, attempt: str) -> str:
    """Where an attempt's reservations lie."""
    return f"{reservations_prefix(pipeline)}{attempt}.json"
