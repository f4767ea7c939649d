"""Where a job without state begins in each partition of a topic: an offset, chosen when it is submitted.

Flink's own `latest-offset` and `group-offsets` leave a partition without an offset until its first record: a
job that is restored before that chooses again, and what came meanwhile is never read. Pure: no IO.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

DISCOVERY_SECONDS = 60
"""How often a running job looks for partitions that were added; it reads them from their beginning."""


class Start(StrEnum):
    """Where a job that is not restored begins to read."""

    COMMITTED = "committed"
    EARLIEST = "earliest"
    LATEST = "latest"


@dataclass(frozen=True, slots=True)
class TopicOffsets:
    """What a broker says of a topic and of a consumer group's offsets in it, by partition.

    Attributes:
        first: the oldest offset that is left.
        end: the offset behind the last record that is committed: before the first transaction that is open.
        written: the offset behind the last record there is.
        committed: the group's offset, where it has one.
    """

    first: Mapping[int, int]
    end: Mapping[int, int]
    written: Mapping[int, int]
    committed: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class StartPositions:
    """Where a job without state begins to read a topic.

    Attributes:
        topic: the topic.
        group: the consumer group that reads it.
        offsets: the first offset to read, by partition.
        uncommitted: the partitions that the group has no offset of.
        unreadable: offsets that the group would go on from and that are not there, by partition: retention
            removed them, or the topic was made anew.
    """

    topic: str
    group: str
    offsets: Mapping[int, int]
    uncommitted: frozenset[int]
    unreadable: Mapping[int, int]


def choose_positions(
    topic: str, group: str, found: TopicOffsets, *, start: Start, fallback: Start
) -> StartPositions:
    """Returns an offset for each partition.

    A partition that the group has no offset of begins where `fallback` says, and at its beginning where the
    group has offsets of others: it was added since.

    Args:
        topic: the topic.
        group: the consumer group.
        found: what the broker says of them.
        start: where to begin.
        fallback: where to begin with `committed` in a topic that the group has no offset of.
    """
    known = found.committed if start is Start.COMMITTED else {}
    unreadable = {
        number: offset
        for number, offset in known.items()
        if number in found.first and not found.first[number] <= offset <= found.written[number]
    }
    wanted = start if start is not Start.COMMITTED else (Start.EARLIEST if known else fallback)
    chosen = dict(found.end if wanted is Start.LATEST else found.first)
    chosen |= {
        number: offset for number, offset in known.items() if number in chosen and number not in unreadable
    }
    return StartPositions(topic, group, chosen, frozenset(chosen.keys() - found.committed.keys()), unreadable)


def scan_settings(positions: StartPositions) -> dict[str, str]:
    """The Kafka connector's options for a table that begins there."""
    offsets = (f"partition:{number},offset:{offset}" for number, offset in sorted(positions.offsets.items()))
    return {
        "topic": positions.topic,
        "properties.group.id": positions.group,
        # an offset that retention removed: on with the oldest that is left, never at the end
        "properties.auto.offset.reset": "earliest",
        "properties.isolation.level": "read_committed",
        "scan.startup.mode": "specific-offsets",
        "scan.startup.specific-offsets": ";".join(offsets),
        "scan.topic-partition-discovery.interval": f"{DISCOVERY_SECONDS} s",
    }
