"""The rules of timelines: an offset is scored by one generation, however attempts come and go."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ferryline.flink_scoring.timeline.pace import RESERVED, Pace
from ferryline.flink_scoring.timeline.rules import Assigned, Span, Switch, Timeline, in_force, take_over


def generation(number: int) -> Assigned:
    return Assigned("digits:production", number, number, f"sha256:{number:064x}")


def begun(*switches: tuple[int, int], first: int, floor: int = 0) -> Timeline:
    written = [
        Switch(number, offset, generation(by)) for number, (offset, by) in enumerate(switches, start=1)
    ]
    return Timeline(written, first=first, floor=floor)


def answers(spans: list[Span]) -> list[tuple[int, int, int]]:
    return [(span.start, span.stop, span.by.generation) for span in spans]


def test_a_later_entry_overrides_the_earlier_ones_from_its_offset_on() -> None:
    timeline = begun((0, 1), (100, 2), (50, 3), (70, 4), first=20)
    assert answers(timeline.score(20, 120)) == [(20, 50, 1), (50, 70, 3), (70, 121, 4)]


def test_before_the_oldest_entry_that_is_left_its_generation_scores() -> None:
    assert answers(begun((50, 3), (70, 4), first=10).score(10, 60)) == [(10, 61, 3)]


def test_an_attempt_begins_where_nobody_scored_before() -> None:
    assert take_over([], floor=0, first=7, by=generation(1)) == Switch(1, 7, generation(1))
    before = [Switch(4, 0, generation(1))]
    assert take_over(before, floor=30, first=7, by=generation(2)) == Switch(5, 30, generation(2))


def test_nothing_is_scored_beyond_what_is_reserved() -> None:
    timeline = begun((0, 1), first=0)
    assert timeline.must_wait(0)
    timeline.reserve(10)
    assert not timeline.must_wait(9)
    assert timeline.must_wait(10)


def test_a_batch_that_leads_further_than_its_size_is_reserved_whole() -> None:
    timeline = begun((0, 1), first=0)
    assert timeline.must_wait(1_000_000)  # a compacted topic has gaps
    until = timeline.shall_reserve(20)
    assert until is not None
    timeline.reserve(until)
    assert not timeline.must_wait(1_000_000)


def test_what_is_reserved_shrinks_with_the_stream() -> None:
    timeline = begun((0, 1), first=0)
    timeline.reserve(10_000)
    timeline.score(0, 99)
    assert timeline.shall_reserve(9_000) is None
    assert timeline.shall_reserve(50) == 150


def test_records_behind_a_switch_wait_until_it_is_known_to_be_written() -> None:
    timeline = begun((0, 1), first=0)
    timeline.reserve(1000)
    timeline.score(0, 9)
    assert timeline.propose(generation(2)) == Switch(2, 10, generation(2))
    assert not timeline.must_wait(9)
    assert timeline.must_wait(10)
    timeline.confirm()
    assert not timeline.must_wait(10)
    assert answers(timeline.score(10, 20)) == [(10, 21, 2)]
    assert timeline.propose(generation(2)) is None


def test_a_switch_among_replayed_records_waits_until_nobody_scored_them() -> None:
    timeline = begun((0, 1), first=10, floor=50)
    timeline.reserve(1000)
    assert timeline.propose(generation(2)) == Switch(2, 50, generation(2))
    assert not timeline.must_wait(49)
    timeline.confirm()
    assert timeline.propose(generation(3)) == Switch(3, 50, generation(3))
    timeline.confirm()
    assert answers(timeline.score(10, 60)) == [(10, 50, 1), (50, 61, 3)]
    assert timeline.needed == {generation(3)}


def test_a_switch_that_was_given_up_is_corrected_once_it_turns_out_to_be_written() -> None:
    timeline = begun((0, 1), (40, 2), first=0)
    timeline.reserve(1000)
    timeline.score(0, 9)
    timeline.propose(generation(3))
    assert timeline.give_up(60) is False
    assert answers(timeline.score(10, 60)) == [(10, 40, 1), (40, 61, 2)]
    for number, offset, by in ((4, 10, 1), (5, 40, 2), (6, 61, 3)):
        timeline.confirm()
        assert timeline.propose(generation(3)) == Switch(number, offset, generation(by))


def test_an_attempt_whose_number_is_taken_writes_no_more_and_waits_for_nothing() -> None:
    timeline = begun((0, 1), first=0)
    timeline.propose(generation(2))
    timeline.supersede()
    assert timeline.propose(generation(3)) is None
    assert not timeline.must_wait(10_000)
    assert answers(timeline.score(0, 9)) == [(0, 10, 3)]


def test_there_is_nothing_to_confirm_before_something_was_proposed() -> None:
    with pytest.raises(ValueError, match="no entry"):
        begun((0, 1), first=0).confirm()


# --- pace ---------------------------------------------------------------------------------------------


def test_a_steady_stream_is_reserved_for_seconds() -> None:
    pace = Pace(0.0)
    for tick in range(40):
        pace.saw(100, tick / 10)
    assert pace.rate(4.0) == pytest.approx(1000, rel=0.1)
    assert pace.room(4.0) == pytest.approx(1000 * RESERVED, rel=0.1)


def test_a_stream_that_pauses_is_reserved_record_by_record() -> None:
    pace = Pace(0.0)
    for tick in range(10):
        pace.saw(5000, tick / 10)
    assert pace.room(100.0) < 50_000 * RESERVED / 10
    assert pace.room(200.0) == 2


def test_a_sudden_batch_fits_in() -> None:
    pace = Pace(0.0)
    pace.saw(2000, 50.0)
    assert pace.room(50.0) >= 2 * 2000


# --- any interleaving ---------------------------------------------------------------------------------


@dataclass
class Attempt:
    """One life of a subtask: its view, and the entry it sent."""

    number: int
    timeline: Timeline
    sent: Switch | None = None


@dataclass
class Cloud:
    """What the store holds."""

    log: list[Switch] = field(default_factory=list)
    marks: dict[int, int] = field(default_factory=dict)

    def put_if_absent(self, switch: Switch) -> bool:
        if switch.number == len(self.log) + 1:
            self.log.append(switch)
            return True
        return False

    def read(self, first: int) -> list[Switch]:
        """As the journal does: back to the entry that decides about `first`."""
        found: list[Switch] = []
        for switch in reversed(self.log):
            found.insert(0, switch)
            if switch.offset <= first:
                break
        return found


class Histories(RuleBasedStateMachine):
    """Attempts that crash, writes that arrive late or never, promotions at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.cloud = Cloud()
        self.serving = 1
        self.checkpoint = 0
        self.scored: dict[int, int] = {}
        self.attempts = 0
        self.active: Attempt | None = None
        self.late: list[Switch] = []
        self.exposed = False  # scored while the store was away: until it has all, a crash is the known limit

    @rule()
    def promote(self) -> None:
        self.serving += 1

    @precondition(lambda self: self.active is None)
    @rule(behind=st.integers(0, 5))
    def restore(self, behind: int) -> None:
        first = max(0, self.checkpoint - behind)
        self.checkpoint = first
        floor = max(self.cloud.marks.values(), default=0)
        written = self.cloud.read(first)
        switch = take_over(written, floor=floor, first=first, by=generation(self.serving))
        assert self.cloud.put_if_absent(switch)
        self.attempts += 1
        self.active = Attempt(self.attempts, Timeline([*written, switch], first=first, floor=floor))

    @precondition(lambda self: self.active)
    @rule(count=st.integers(1, 8), gap=st.integers(0, 3))
    def score(self, count: int, gap: int) -> None:
        attempt = self._active()
        first = attempt.timeline.reached + (gap if attempt.timeline.reached in self.scored else 0)
        if attempt.timeline.must_wait(first + count - 1):
            return
        self._take(attempt, first, first + count - 1)

    @precondition(lambda self: self.active)
    @rule(count=st.integers(1, 8))
    def score_while_the_store_is_away(self, count: int) -> None:
        attempt = self._active()
        first = attempt.timeline.reached
        self.exposed |= attempt.timeline.must_wait(first + count - 1)
        attempt.timeline.give_up(first + count - 1)
        self._take(attempt, first, first + count - 1)

    def _take(self, attempt: Attempt, first: int, last: int) -> None:
        covered = []
        for span in attempt.timeline.score(first, last):
            for offset in range(span.start, span.stop):
                covered.append(offset)
                assert self.scored.setdefault(offset, span.by.generation) == span.by.generation
        assert covered == list(range(first, last + 1))

    @precondition(lambda self: self.active)
    @rule(newer=st.booleans())
    def propose(self, newer: bool) -> None:
        attempt = self._active()
        self.serving += newer
        attempt.sent = attempt.timeline.propose(generation(self.serving))

    @precondition(lambda self: self.active and self.active.sent)
    @rule()
    def answer(self) -> None:
        attempt = self._active()
        assert attempt.sent is not None
        number = attempt.sent.number
        if self.cloud.put_if_absent(attempt.sent) or self.cloud.log[number - 1] == attempt.sent:
            attempt.timeline.confirm()
        else:
            attempt.timeline.supersede()
        attempt.sent = None

    @precondition(lambda self: self.active and self.active.sent)
    @rule()
    def arrive_unheard(self) -> None:
        attempt = self._active()
        assert attempt.sent is not None
        self.cloud.put_if_absent(attempt.sent)

    @precondition(lambda self: self.active)
    @rule(room=st.integers(1, 12), heard=st.booleans())
    def reserve(self, room: int, heard: bool) -> None:
        timeline = self._active().timeline
        until = timeline.shall_reserve(room)
        if until is None:
            return
        if until < timeline.reserved:
            timeline.reserve(until)
        self.cloud.marks[self._active().number] = max(until, timeline.safe_floor)
        if heard:
            timeline.reserve(until)

    @precondition(lambda self: self.active)
    @rule(behind=st.integers(0, 20))
    def complete_checkpoint(self, behind: int) -> None:
        self.checkpoint = max(self.checkpoint, self._active().timeline.reached - behind)

    @precondition(lambda self: self.active and self._may_crash())
    @rule()
    def crash(self) -> None:
        attempt = self._active()
        if attempt.sent is not None:
            self.late.append(attempt.sent)
        self.active = None

    @precondition(lambda self: self.active and self._may_crash())
    @rule()
    def stop_in_order(self) -> None:
        attempt = self._active()
        self.cloud.marks[attempt.number] = attempt.timeline.safe_floor
        self.active = None

    @precondition(lambda self: self.late)
    @rule()
    def arrive_late(self) -> None:
        self.cloud.put_if_absent(self.late.pop())

    @invariant()
    def entries_are_numbered(self) -> None:
        assert [switch.number for switch in self.cloud.log] == list(range(1, len(self.cloud.log) + 1))

    def _may_crash(self) -> bool:
        timeline = self._active().timeline
        pending = timeline._pending  # a correction that is due is told by nothing else
        corrected = pending is None or pending.instead is None
        if timeline.reached <= max(self.cloud.marks.values(), default=0) and corrected:
            self.exposed = False
        return not self.exposed

    def _active(self) -> Attempt:
        assert self.active is not None
        return self.active


TestHistories = Histories.TestCase
TestHistories.settings = settings(stateful_step_count=50)


def test_what_is_in_force_ascends() -> None:
    written = [Switch(1, 5, generation(1)), Switch(2, 9, generation(2)), Switch(3, 7, generation(3))]
    assert [switch.offset for switch in in_force(written)] == [5, 7]
