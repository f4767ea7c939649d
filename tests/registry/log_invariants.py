"""What must hold of a channel's log after any history of promotes, as a pure function.

- Generations are 1, 2, 3 … without a hole, and each entry names the bytes of the one before it.
- Each acknowledged change lies in the log, once, byte for byte; so none is lost and none is done twice.
- A change whose caller was told anything else than "done" or "unknown" is not in the log.
- Nothing is in the log that nobody wanted, and nobody's change is in it twice.
- Whoever follows the log sees generations rise, and only entries that are in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from ferryline.registry.digests import digest_of
from ferryline.registry.documents import ChannelEntry
from ferryline.registry.errors import FerryError
from ferryline.registry.log import AppendLog
from ferryline.registry.stores import Store


class Outcome(Enum):
    """What the caller of a change was told."""

    DONE = auto()
    CONFLICT = auto()  # someone else was first
    REFUSED = auto()  # held, not found, another contract
    FAILED = auto()  # the store failed before anything was sent
    UNKNOWN = auto()  # the store failed, and nothing tells whether the change was kept


@dataclass(frozen=True, slots=True)
class Attempt:
    """One change that someone wanted.

    Args:
        outcome: what they were told.
        offered: the `op_id` of every entry that was sent for it.
        entry: what they were given, where it was done.
    """

    outcome: Outcome
    offered: frozenset[str] = frozenset()
    entry: ChannelEntry | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """An entry as a follower saw it."""

    generation: int
    digest: str


@dataclass(slots=True)
class _Log:
    """The entries that can be read, and everything that is wrong with the log itself."""

    entries: dict[int, ChannelEntry] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def log_of(store: Store, prefix: str) -> dict[int, bytes]:
    """The raw log under `prefix`, by number."""
    log = AppendLog(store, prefix)
    return {number: log.require(number) for number in log.numbers()}


def violations(
    log: Mapping[int, bytes],
    attempts: Iterable[Attempt],
    followers: Iterable[Sequence[Sighting]] = (),
) -> list[str]:
    """Every promise that is broken, one line each; nothing where all is well.

    Args:
        log: the bytes under each number, as they lie in the store at the end.
        attempts: everything that anyone tried, those that are older than the test included.
        followers: what each follower saw, in the order it saw it.
    """
    read = _read(log)
    wanted = list(attempts)
    return [
        *read.faults,
        *_acknowledged(read.entries, log, wanted),
        *_unacknowledged(read.entries, wanted),
        *_strangers(read.entries, wanted),
        *(fault for seen in followers for fault in _followed(log, seen)),
    ]


def _read(log: Mapping[int, bytes]) -> _Log:
    found = _Log()
    if sorted(log) != list(range(1, len(log) + 1)):
        found.faults.append(f"the numbers are {sorted(log)}")
    for number, data in sorted(log.items()):
        try:
            entry = ChannelEntry.decode(data, key=str(number))
        except FerryError as error:
            found.faults.append(f"entry {number} cannot be read: {error}")
            continue
        found.entries[number] = entry
        if entry.generation != number:
            found.faults.append(f"entry {number} says that it is {entry.generation}")
        before = digest_of(log[number - 1]) if number - 1 in log else None
        if entry.previous != before:
            found.faults.append(f"entry {number} does not follow from the one before")
    return found


def _acknowledged(
    entries: Mapping[int, ChannelEntry], log: Mapping[int, bytes], attempts: Sequence[Attempt]
) -> Iterator[str]:
    for attempt in attempts:
        if attempt.outcome is not Outcome.DONE:
            continue
        if attempt.entry is None:
            yield "a change was done and gave no entry"
            continue
        number = attempt.entry.generation
        if number not in entries:
            yield f"the acknowledged generation {number} is lost"
        elif digest_of(log[number]) != attempt.entry.digest:
            yield f"generation {number} is another than the one that was acknowledged"


def _unacknowledged(entries: Mapping[int, ChannelEntry], attempts: Sequence[Attempt]) -> Iterator[str]:
    kept = {entry.op_id: number for number, entry in entries.items()}
    for attempt in attempts:
        if attempt.outcome in {Outcome.DONE, Outcome.UNKNOWN}:
            continue
        for op_id in attempt.offered & kept.keys():
            yield f"generation {kept[op_id]} was written though its writer was told {attempt.outcome.name}"


def _strangers(entries: Mapping[int, ChannelEntry], attempts: Sequence[Attempt]) -> Iterator[str]:
    offered = {op_id: index for index, attempt in enumerate(attempts) for op_id in attempt.offered}
    seen: dict[int, int] = {}
    for number, entry in sorted(entries.items()):
        index = offered.get(entry.op_id)
        if index is None:
            yield f"nobody wanted generation {number}"
        elif index in seen:
            yield f"generations {seen[index]} and {number} are the same change, done twice"
        else:
            seen[index] = number


def _followed(log: Mapping[int, bytes], seen: Sequence[Sighting]) -> Iterator[str]:
    last = 0
    for sighting in seen:
        if sighting.generation <= last:
            yield f"a follower saw generation {sighting.generation} after {last}"
        last = sighting.generation
        if sighting.generation not in log or digest_of(log[sighting.generation]) != sighting.digest:
            yield f"a follower saw a generation {sighting.generation} that is not in the log"
