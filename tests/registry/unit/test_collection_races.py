"""Each race between garbage collection and the rest, by itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from ferryline.registry import Registry, garbage
from ferryline.registry.collection import Report, Retention
from ferryline.registry.collector import Collector
from ferryline.registry.digests import digest_of
from ferryline.registry.documents import ModelFacts, TensorSpec
from ferryline.registry.errors import ConflictError, RefusedError
from ferryline.registry.garbage import FileState, KeptFile, fate
from tests.registry.stage import Program, ProgramTime, World

FACTS = ModelFacts(
    opset=17,
    ir_version=8,
    inputs=(TensorSpec(name="input", dtype="float32", shape=(-1, 4)),),
    outputs=(TensorSpec(name="label", dtype="int64", shape=(-1,)),),
)
GRACE = 600.0
RETENTION = Retention(keep_versions=1, rollback_depth=0, grace=timedelta(seconds=GRACE))
OLD, NEW = b"old model", b"new model"
DIGEST = digest_of(OLD)
FILE = "blobs/sha256/" + DIGEST.removeprefix("sha256:")
MARK, NOTE = garbage.mark_key(DIGEST), garbage.collected_key(DIGEST)


@pytest.fixture(autouse=True)
def _time_of_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "time", ProgramTime)
    monkeypatch.setattr(garbage, "elapsed", ProgramTime.monotonic)


@pytest.fixture
def world() -> World:
    """Version 1 is garbage that was marked long enough ago; version 2 serves."""
    world = World()
    registry = Registry(world, actor="tester", clock=world.clock)
    for version, data in enumerate((OLD, NEW), start=1):
        registry.publish("digits", data, FACTS)
        registry.promote("digits", version)
    assert [file.digest for file in collect(world).marked] == [DIGEST]
    world.seconds += GRACE
    return world


def holds(world: World, key: str) -> bool:
    return any(listed.key == key for listed in world.list(key))


def collector(
    world: World,
    reports: list[Report] | None = None,
    faults: list[Exception] | None = None,
    retention: Retention = RETENTION,
) -> Program:
    """A run of garbage collection that is about to begin."""

    def run(program: Program) -> None:
        made = Collector(
            Registry(program, actor="gc"),
            retention,
            monotonic=program.monotonic,
            pause=program.sleep,
            readers=1,
        )
        try:
            report = made.run()
        except ConflictError as error:
            if faults is None:
                raise
            faults.append(error)
        else:
            if reports is not None:
                reports.append(report)

    program = Program("gc", world, is_change=False)
    program.start(run)
    return program


def collect(world: World) -> Report:
    reports: list[Report] = []
    collector(world, reports).run()
    return reports[0]


def securer(world: World, refused: list[RefusedError]) -> Program:
    """A promote of version 1 that makes sure of its file."""

    def run(program: Program) -> None:
        try:
            garbage.secure(program, DIGEST, what="digits@1")
        except RefusedError as error:
            refused.append(error)

    program = Program("promote", world, is_change=True)
    program.start(run)
    return program


def publisher(world: World, kept: list[KeptFile]) -> Program:
    """A publish of the file of version 1, until its manifest."""
    program = Program("publish", world, is_change=True)
    program.start(lambda program: kept.append(garbage.keep(program, DIGEST, OLD)))
    return program


def confirmer(world: World, kept: KeptFile) -> Program:
    def run(program: Program) -> None:
        KeptFile(program, kept.digest, kept.data, kept.endangered, kept.looked_at).confirm()

    program = Program("publish", world, is_change=True)
    program.start(run)
    return program


def test_garbage_goes_after_the_grace_and_says_so(world: World) -> None:
    assert fate(world, DIGEST).state is FileState.MARKED
    report = collect(world)
    assert [(file.digest, file.size, file.versions) for file in report.collected] == [
        (DIGEST, len(OLD), ("digits@1",))
    ]
    assert not holds(world, FILE)
    assert not holds(world, MARK)
    assert str(fate(world, DIGEST)) == "was collected on 2026-01-01 00:10:00 UTC"
    assert fate(world, digest_of(NEW)).state is FileState.KEPT


def test_a_promote_takes_the_mark_away_before_the_run_looks_again(world: World) -> None:
    run, refused = collector(world), list[RefusedError]()
    run.run_until(f"put {NOTE}")
    securer(world, refused).run()
    run.run()
    assert (holds(world, FILE), holds(world, MARK), holds(world, NOTE), refused) == (True, False, False, [])


def test_a_promote_that_meets_a_run_at_the_file_waits_for_it(world: World) -> None:
    run, refused = collector(world), list[RefusedError]()
    run.run_until(f"delete {FILE}")
    promote = securer(world, refused)
    for _ in range(10):
        promote.run_until("sleep")
        assert not promote.ended
        world.seconds = promote.asleep_until
        promote.step()
    run.run()
    promote.run()
    (error,) = refused
    assert (error.gate, holds(world, FILE)) == ("blob", False)
    assert "digits@1 was collected on 2026-01-01" in str(error)
    assert "Publish the same file again" in str(error)


def test_a_promote_that_meets_a_killed_run_goes_on_after_a_while(world: World) -> None:
    run, refused = collector(world), list[RefusedError]()
    run.run_until(f"delete {FILE}")
    run.step(kill=True)
    before = world.seconds
    securer(world, refused).run()
    assert garbage.SETTLE <= world.seconds - before < garbage.SETTLE + 1
    assert (holds(world, FILE), holds(world, NOTE), refused) == (True, False, [])


def test_a_promote_of_what_nothing_threatens_costs_one_listing(world: World) -> None:
    asked = []
    program = Program("promote", world, is_change=True)
    program.start(lambda program: garbage.secure(program, digest_of(NEW), what="digits@2"))
    while not program.ended:
        asked.append(program.pending.partition(" ")[0])
        program.step()
    assert asked == ["list"]


def test_a_publish_of_a_marked_file_keeps_it(world: World) -> None:
    kept: list[KeptFile] = []
    publisher(world, kept).run()
    assert (holds(world, MARK), kept[0].endangered) == (False, True)
    assert collect(world).collected == []
    assert holds(world, FILE)


@pytest.mark.parametrize(
    "seen", [f"get {MARK}", f"delete {FILE}", f"delete {MARK}", "add garbage/runs/0000000002.done"]
)
def test_a_publish_while_the_file_is_being_deleted_brings_it_back(world: World, seen: str) -> None:
    run, kept = collector(world), list[KeptFile]()
    publish = publisher(world, kept)
    run.run_until(seen)
    publish.run_until("sleep")
    run.run()
    publish.run()
    confirmer(world, kept[0]).run()
    assert holds(world, FILE)
    assert world.get(FILE).data == OLD
    assert collect(world).collected == []


def test_a_publish_that_took_very_long_looks_again(world: World) -> None:
    collect(world)
    kept: list[KeptFile] = []
    publisher(world, kept).run()  # a new file now, as far as the store knows
    assert not kept[0].endangered
    world.seconds += 1
    confirm = confirmer(world, kept[0])
    assert confirm.ended  # without a single request
    for _ in range(2):  # and then it is stopped for longer than the grace
        collect(world)
        world.seconds += GRACE
    assert not holds(world, FILE)
    confirmer(world, kept[0]).run()
    assert holds(world, FILE)


def test_of_two_runs_the_later_takes_over(world: World) -> None:
    faults: list[Exception] = []
    first = collector(world, faults=faults)
    first.run_until(f"list {garbage.MARKS}")  # and then, right before it writes the note, at the runs
    first.run_until("list garbage/runs/")
    assert not first.ended
    began = world.seconds
    report = collect(world)
    assert [file.digest for file in report.collected] == [DIGEST]
    assert world.seconds - began >= garbage.SETTLE  # what the first had under way must have ended
    first.run()
    assert "another run of garbage collection began meanwhile" in str(faults[0])


def test_a_superseded_run_leaves_the_note_of_a_later_one(world: World) -> None:
    killed = collector(world)
    killed.run_until(f"delete {FILE}")
    killed.step(kill=True)
    world.delete(MARK)
    faults: list[Exception] = []
    first = collector(world, faults=faults)  # finds the note of a run that was killed, and is to forget it
    first.run_until("sleep")
    collect(world)
    world.seconds += GRACE
    last, kept = collector(world), list[KeptFile]()
    last.run_until(f"delete {FILE}")
    first.run()
    assert len(faults) == 1
    assert holds(world, NOTE), "or a promote would not see that a run is at the file"
    publish = publisher(world, kept)
    last.run()
    publish.run()
    confirmer(world, kept[0]).run()
    assert holds(world, FILE)


def test_a_superseded_run_that_gives_up_leaves_the_record_of_the_collection(world: World) -> None:
    faults: list[Exception] = []
    first = collector(world, faults=faults)
    first.run_until(f"put {NOTE}")
    first.step()
    assert first.pending == f"get {MARK}"
    collect(world)
    first.run()
    assert len(faults) == 1
    assert fate(world, DIGEST).state is FileState.COLLECTED


def test_a_run_that_was_stopped_for_very_long_is_superseded_though_its_successor_is_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ferryline.registry.turns.RUNS_KEPT", 1)
    faults: list[Exception] = []
    first = collector(world, faults=faults)
    first.run_until(f"list {garbage.MARKS}")
    first.step()  # what is due is known
    for _ in range(3):
        collect(world)
    assert not holds(world, "garbage/runs/0000000003.json")
    first.run()
    assert "another run" in str(faults[0])


def test_a_run_that_never_waited_says_nothing_of_the_one_before(world: World) -> None:
    killed = collector(world)
    killed.run_until(f"delete {FILE}")
    killed.step(kill=True)  # and the request is still on its way
    world.delete(NOTE)
    began = world.seconds
    patient = replace(RETENTION, grace=timedelta(days=1))
    collector(world, retention=patient).run()
    assert world.seconds == began, "it had nothing to delete, and nothing to wait for"
    assert [file.digest for file in collect(world).collected] == [DIGEST]
    assert world.seconds - began >= garbage.SETTLE
    began = world.seconds
    collect(world)
    assert world.seconds == began, "by now it is settled"


def test_two_runs_that_begin_at_once_are_one(world: World) -> None:
    faults: list[Exception] = []
    first, second = collector(world, faults=faults), collector(world, faults=faults)
    first.run_until("add garbage/runs/")
    second.run_until("add garbage/runs/")
    first.run()
    second.run()
    assert len(faults) == 1
    assert not holds(world, FILE)


def test_a_run_that_was_stopped_before_its_delete_gives_the_file_up(world: World) -> None:
    reports: list[Report] = []
    run = collector(world, reports)
    run.run_until(f"get {MARK}")
    run.run_until(f"put {NOTE}")
    world.seconds += 3_600  # as long as the answer took, or as the process was stopped
    run.run()
    assert holds(world, FILE)
    assert (reports[0].collected, reports[0].spared) == ([], 1)
    assert not holds(world, NOTE)
    assert [file.digest for file in collect(world).collected] == [DIGEST]


def test_a_run_that_was_stopped_reads_the_references_again(world: World) -> None:
    run = collector(world)
    run.run_until(f"list {garbage.MARKS}")
    registry = Registry(world, actor="an older program", clock=world.clock)
    registry.promote("digits", 1)  # which knows nothing of marks
    world.seconds += 3_600
    run.run()
    assert holds(world, FILE)


def test_killed_anywhere_the_next_run_does_the_rest(world: World) -> None:
    objects, written = dict(world._objects), dict(world.written)
    steps = 0
    run = collector(world)
    while not run.ended:
        run.step()
        steps += 1
    for at in range(steps):
        for after in (False, True):
            world._objects, world.written = dict(objects), dict(written)
            world.seconds = GRACE
            run = collector(world)
            for _ in range(at):
                run.step()
            run.step(kill=not after, kill_after=after)
            collect(world)
            assert [listed.key for listed in world.list("blobs/")] == [
                "blobs/sha256/" + digest_of(NEW).removeprefix("sha256:")
            ]
            assert fate(world, DIGEST).state is FileState.COLLECTED
            assert not holds(world, MARK)


def test_a_file_that_was_published_again_is_no_longer_collected(world: World) -> None:
    collect(world)
    world.seconds += 10
    Registry(world, actor="tester", clock=world.clock).publish("digits", OLD, FACTS)
    assert fate(world, DIGEST).state is FileState.KEPT
    collect(world)
    assert not holds(world, NOTE)


def test_a_file_of_a_publish_that_was_cut_off_goes_without_a_trace(world: World) -> None:
    orphan = digest_of(b"orphan")
    world.put_if_absent("blobs/sha256/" + orphan.removeprefix("sha256:"), b"orphan")
    assert [(file.digest, file.versions) for file in collect(world).marked] == [(orphan, ())]
    world.seconds += GRACE
    assert [file.digest for file in collect(world).collected] == [orphan]
    assert fate(world, orphan).state is FileState.MISSING


def test_ages_are_the_stores_whatever_the_clock_of_the_program_says(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.seconds -= 1  # the mark is a second too young
    monkeypatch.setattr("ferryline.registry.turns.utc_now", lambda: world.clock() + timedelta(days=1))
    report = collect(world)
    assert [file.digest for file in report.waiting] == [DIGEST]
    world.seconds += 1
    monkeypatch.setattr("ferryline.registry.turns.utc_now", lambda: world.clock() - timedelta(days=1))
    assert [file.digest for file in collect(world).collected] == [DIGEST]


def test_the_note_of_a_killed_run_stays_until_nothing_of_that_run_is_under_way(world: World) -> None:
    run = collector(world)
    run.run_until(f"delete {FILE}")
    run.step(kill=True)
    world.delete(MARK)  # as whoever refers to the file does; and it looks for the note next
    following = collector(world)
    before = world.seconds
    following.run_until("sleep")
    assert holds(world, NOTE)
    following.run_until(f"delete {NOTE}")
    assert world.seconds - before >= garbage.SETTLE
    following.run()
    assert (holds(world, FILE), holds(world, NOTE)) == (True, False)
