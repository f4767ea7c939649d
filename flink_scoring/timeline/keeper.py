"""The timelines of one subtask at work: what may be scored now, and by which generation.

While the store answers, records wait only for what `rules` says: a few milliseconds at the first record of a
partition, at each swap, and where a stream is suddenly faster than what was reserved. While it does not
answer, a partition that is being scored goes on, and what the timeline does not cover is counted; a partition
that begins waits, because its timeline says what it must be scored by.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from ferryline.flink_scoring.timeline.documents import Reserved
from ferryline.flink_scoring.timeline.journal import Journal
from ferryline.flink_scoring.timeline.models import Models
from ferryline.flink_scoring.timeline.pace import Pace
from ferryline.flink_scoring.timeline.partitions import Kept, Shared, all_may_go
from ferryline.flink_scoring.timeline.patience import until_it_works
from ferryline.flink_scoring.timeline.rules import Assigned, Timeline, take_over
from ferryline.flink_scoring.timeline.shares import Offsets, Part, Partitions, Rows, by_generation, parts_of
from ferryline.flink_scoring.timeline.writer import Writer
from ferryline.model_runtime.served import ServedModel
from ferryline.registry.errors import MissingRightError
from ferryline.registry.parallel import in_order

PATIENCE = 5.0
"""Seconds that records of a partition wait for the store, once; then it counts as away."""

log = structlog.get_logger(__name__)

Share = tuple[ServedModel, Rows | None]
"""A version and the rows that it scores, ascending; None for the whole batch."""


@dataclass(slots=True)
class Counts:
    """Records that are not covered.

    Attributes:
        unrecorded: scored while the store was away, beyond what was reserved: a restored job may score them
            by another version.
        replayed_otherwise: scored by another version than the timeline says, which can be had no more.
    """

    unrecorded: int = 0
    replayed_otherwise: int = 0


class Keeper:
    """Says which generation scores which rows, for one subtask's attempt.

    Args:
        journal: where timelines are kept.
        models: gives the model of a generation.
        log_of: the name of a partition's log.
        patience: seconds that records wait for the store.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        journal: Journal,
        models: Models,
        log_of: Callable[[int], str],
        *,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts = Counts()
        self._journal = journal
        self._models = models
        self._log_of = log_of
        self._patience = patience
        self._clock = clock
        self._shared = Shared()
        self._writer = Writer(self._shared, journal, models, clock=clock)
        self._is_off = False

    def stop(self) -> None:
        """Write no more; to be called when nothing is scored any more."""
        self._writer.stop()

    def choose(self, partitions: Partitions, offsets: Offsets) -> list[Share]:
        """Which versions score a batch, which is taken for scored then.

        Args:
            partitions: [n].
            offsets: [n].
        """
        parts = list(parts_of(partitions, offsets))
        self._begin([part for part in parts if part.partition not in self._shared.partitions])
        if self._writer.denied and not self._is_off:
            self._switch_off(self._writer.denied)
        if self._is_off:
            return [(self._models.current(), None)]
        with self._shared.changed:
            newest = self._models.newest()
            for part in parts:  # whatever serves when a batch comes scores it, once that is written
                self._timeline(part).propose(newest)
            self._wait(parts)
            spans = [(part, self._timeline(part).score(part.first, part.last)) for part in parts]
            rows_of = by_generation(offsets, spans)
            found = {by: self._models.kept(by) for by in rows_of}
        return [self._share(by, found[by], rows, len(offsets)) for by, rows in rows_of.items()]

    # --- what scores ------------------------------------------------------------------------------

    def _share(self, by: Assigned, served: ServedModel | None, rows: Rows | None, size: int) -> Share:
        if served is None:
            log.info("a version that scored before the restore is loaded", generation=by.generation)
            served = until_it_works(lambda: self._models.load(by), "their version is loaded again")
        if served is None:
            self.counts.replayed_otherwise += size if rows is None else len(rows)
            served = self._models.current()
        return served, rows

    def _wait(self, parts: Sequence[Part]) -> None:
        """Wait until all may be scored, or as long as patience lasts."""
        now = self._clock()
        waiting = [(self._shared.partitions[part.partition], part.last) for part in parts]
        for kept, last in waiting:
            kept.pace.saw(max(0, last + 1 - kept.timeline.reached), now)
        if all_may_go(waiting):
            return
        self._writer.wake()
        end = now + (0 if self._shared.away else self._patience)
        while (left := end - self._clock()) > 0 and not self._writer.denied:
            self._shared.changed.wait(left)
            if all_may_go(waiting):
                return
        self._go_on(parts)

    def _go_on(self, parts: Sequence[Part]) -> None:
        if not self._shared.away:
            log.warning(
                "the store does not take timelines: if this job is restored before it does, records may be "
                "scored by another version than now"
            )
        self._shared.away = True
        for part in parts:
            timeline = self._timeline(part)
            if timeline.give_up(part.last):
                self.counts.unrecorded += part.last + 1 - max(part.first, timeline.reserved)

    def _timeline(self, part: Part) -> Timeline:
        return self._shared.partitions[part.partition].timeline

    # --- beginning --------------------------------------------------------------------------------

    def _begin(self, parts: Sequence[Part]) -> None:
        if not parts or self._is_off:
            return
        try:
            begun = until_it_works(lambda: self._begun(parts), "their timeline can be read")
        except MissingRightError as error:
            self._switch_off(error)
            return
        is_first = not self._shared.partitions
        with self._shared.changed:
            self._shared.partitions.update(begun)
        if is_first:
            self._writer.start()

    def _begun(self, parts: Sequence[Part]) -> dict[int, Kept]:
        reservations = self._journal.reservations()
        kept = in_order(lambda part: self._take_over(part, reservations), parts)
        return {part.partition: each for part, each in zip(parts, kept, strict=True)}

    def _take_over(self, part: Part, reservations: dict[str, Reserved]) -> Kept:
        name = self._log_of(part.partition)
        reserved = reservations.get(name)
        floor, newest = (reserved.until, reserved.newest) if reserved else (0, 0)
        with self._shared.changed:
            by = self._models.newest()
        written = self._journal.written(part.partition, part.first, newest=newest)
        switch = take_over(written, floor=floor, first=part.first, by=by)
        self._journal.append(part.partition, switch.number, self._journal.entry(part.partition, switch))
        timeline = Timeline([*written, switch], first=part.first, floor=floor)
        log.info(
            "partition taken over",
            partition=part.partition,
            offset=part.first,
            switches_at=switch.offset,
            generation=by.generation,
        )
        return Kept(name, timeline, Pace(self._clock()))

    def _switch_off(self, error: MissingRightError) -> None:
        self._is_off = True
        log.error(
            "timelines are off: replayed records are scored by the version that serves then",
            reason=str(error),
            remedy="grant it with `python -m ferryline.deploy.access grant consumer … --pipeline NAME`, or "
            'say replay = "newest" in [scoring]',
        )
