"""Where to read a topic on: what is known is compared with what the broker has. Pure.

- A position is an offset of a partition of one topic, named by the id that its broker gave it: two topics of
  one name have nothing in common.
- On the first start, `start` of the pipeline file says where to begin. What comes later is read whole: a
  partition that was added, and a topic that was made anew.
- Records that are gone are passed over; records that were learnt are not read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ferryline.trainer.errors import OffsetsLostError

Start = Literal["earliest", "latest"]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where reading goes on.

    Attributes:
        topic_id: of the topic that the offsets are of; empty where it is not known.
        offsets: by partition, the next one to read.
    """

    topic_id: str = ""
    offsets: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OffsetBounds:
    """The records that a partition has: from offset `first` up to, not including, `end`."""

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the person who runs the trainer is to know: the name of a log line and its fields."""

    event: str
    fields: Mapping[str, Any]


def place(
    known: Placement,
    topic: str,
    topic_id: str,
    bounds: Mapping[int, OffsetBounds],
    *,
    start: Start,
    diverged: Mapping[int, int] | None = None,
) -> tuple[Placement, list[Finding]]:
    """Returns where to read on, for every partition in `bounds`, and what is to be told about it.

    Args:
        known: where reading had come; without offsets this is the first start.
        topic: its name, for messages.
        topic_id: of the topic that is there now; empty where the broker gives none.
        bounds: the records of each of its partitions.
        start: where to begin on the first start.
        diverged: by partition, the offset from which on the broker replaced records that were read.

    Raises:
        OffsetsLostError: a partition ends before the known offset, or is not there, and no id tells whether
            it is the same topic.
    """
    if not known.offsets:
        offsets = {number: each.end if start == "latest" else each.first for number, each in bounds.items()}
        return Placement(topic_id, offsets), []
    if known.topic_id and topic_id and known.topic_id != topic_id:
        offsets = {number: each.first for number, each in bounds.items()}
        anew = Finding(
            "topic_made_anew",
            {
                "topic": topic,
                "had_read": dict(known.offsets),
                "begins_at": offsets,
                "action": "learning goes on with the first record of the new topic",
            },
        )
        return Placement(topic_id, offsets), [anew]
    same = bool(known.topic_id and topic_id)
    if not same and known.offsets.keys() - bounds.keys():
        raise _lost(f"partitions {sorted(known.offsets.keys() - bounds.keys())} of {topic} are not there")
    findings: list[Finding] = []
    offsets = {}
    for number, each in bounds.items():
        limit = (diverged or {}).get(number)
        offsets[number] = _on(known, topic, number, each, limit, same=same, findings=findings)
    return Placement(topic_id or known.topic_id, offsets), findings


def _on(
    known: Placement,
    topic: str,
    number: int,
    bounds: OffsetBounds,
    diverged: int | None,
    *,
    same: bool,
    findings: list[Finding],
) -> int:
    """Where to read one partition of the same topic on."""
    where = {"topic": topic, "partition": number}
    position = known.offsets.get(number)
    if position is None:
        findings.append(Finding("partition_added", where | {"begins_at": bounds.first}))
        return bounds.first
    if position < bounds.first:
        gone = {"expected": position, "found": bounds.first, "at_most": bounds.first - position}
        findings.append(Finding("records_gone", where | gone))
        return bounds.first
    end = bounds.end if diverged is None else min(bounds.end, diverged)
    if position <= end:
        return position
    if not same and diverged is None:
        raise _lost(f"{topic}[{number}] was read up to offset {position}, but it ends at {end}")
    findings.append(Finding("records_cut", where | {"had_read_up_to": position, "goes_on_at": end}))
    return end


def _lost(finding: str) -> OffsetsLostError:
    return OffsetsLostError(
        f"{finding}: the topic was made anew or cut, and no topic id tells which. Learn anew with "
        "--from-scratch, or name another folder with --state"
    )
