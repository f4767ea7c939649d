"""Publishing, promoting, rolling back and collecting at once, in every order, killed anywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import timedelta

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ferryline.registry import Registry, garbage
from ferryline.registry.collection import Retention
from ferryline.registry.collector import Collector
from ferryline.registry.digests import digest_of
from ferryline.registry.documents import ModelFacts, TensorSpec
from ferryline.registry.errors import ConflictError, NotFoundError, RefusedError
from tests.registry.stage import Program, ProgramTime, World, pass_time

FACTS = ModelFacts(
    opset=17,
    ir_version=8,
    inputs=(TensorSpec(name="input", dtype="float32", shape=(-1, 4)),),
    outputs=(TensorSpec(name="label", dtype="int64", shape=(-1,)),),
)
GRACE = 600.0
RETENTION = Retention(keep_versions=1, rollback_depth=1, grace=timedelta(seconds=GRACE))
KILL, PASS_TIME = 0, 1


@pytest.fixture(autouse=True)
def _time_of_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "time", ProgramTime)
    monkeypatch.setattr(garbage, "elapsed", ProgramTime.monotonic)


def needed(world: World) -> set[str]:
    """The keys of the files that must be there, read from the bare objects."""
    objects = {listed.key: orjson.loads(world.get(listed.key).data) for listed in world.list("models/")}
    manifests = sorted(key for key in objects if "/versions/" in key)
    digests = {objects[key]["blob"]["digest"] for key in manifests[-RETENTION.keep_versions :]}
    entries = sorted(key for key in objects if "/channels/" in key)
    if entries:
        head = objects[entries[-1]]
        digests |= {objects[key]["blob_digest"] for key in entries[-1 - RETENTION.rollback_depth :]}
        if head["undoes_to"] is not None:
            digests.add(objects[entries[head["undoes_to"] - 1]]["blob_digest"])
    return {"blobs/sha256/" + digest.removeprefix("sha256:") for digest in digests}


def files(world: World) -> set[str]:
    return {listed.key for listed in world.list("blobs/")}


def named(world: World, key: str) -> str:
    """The file that a manifest or an entry names."""
    document = orjson.loads(world.get(key).data)
    digest = document["blob"]["digest"] if "/versions/" in key else document["blob_digest"]
    return "blobs/sha256/" + str(digest).removeprefix("sha256:")


def watch(world: World) -> None:
    """Raise where what is referred to is deleted, or where something is referred to that is not there.

    A rollback lengthens the reach of the rollback depth by what may have been garbage for long. That is kept
    from the next run on; it was as well gone already.
    """
    lapsed: set[str] = set()

    def before_delete(key: str) -> None:
        assert key not in needed(world) - lapsed, f"{key} was deleted while something referred to it"

    def after_write(key: str) -> None:
        if key.startswith("models/"):
            assert named(world, key) in files(world), f"{key} names a file that is not there"
            lapsed.update(files(world) - needed(world))
            lapsed.discard(named(world, key))

    world.before_delete, world.after_write = before_delete, after_write


Action = Callable[[Program], None]


def registry_of(program: Program) -> Registry:
    return Registry(program, actor=program.name, clock=program.world.clock)


def publish(content: int) -> Action:
    def run(program: Program) -> None:
        data = b"model %d" % content
        kept = garbage.keep(program, digest_of(data), data)
        registry_of(program).publish("digits", data, FACTS)
        kept.confirm()

    return run


def promote(version: int) -> Action:
    def run(program: Program) -> None:
        registry = registry_of(program)
        with contextlib.suppress(ConflictError, NotFoundError, RefusedError):
            digest = registry.versions("digits").get(version).blob.digest
            garbage.secure(program, digest, what=f"digits@{version}")
            registry.promote("digits", version, force=True)

    return run


def rollback(program: Program) -> None:
    registry = registry_of(program)
    with contextlib.suppress(ConflictError, NotFoundError, RefusedError):
        channel = registry.channel("digits")
        version = channel.rollback_version(channel.require_head())
        garbage.secure(program, registry.versions("digits").get(version).blob.digest, what="it")
        registry.rollback("digits", to=version)


def collect(program: Program) -> None:
    with contextlib.suppress(ConflictError):
        Collector(
            registry_of(program), RETENTION, monotonic=program.monotonic, pause=program.sleep, readers=1
        ).run()


actions = st.one_of(
    st.builds(lambda content: ("publish", publish(content)), st.integers(0, 3)),
    st.builds(lambda version: ("promote", promote(version)), st.integers(1, 5)),
    st.just(("rollback", rollback)),
    st.just(("collect", collect)),
)
lanes = st.lists(st.lists(actions, max_size=4), min_size=1, max_size=2)


def drive(
    world: World, lanes: list[list[tuple[str, Action]]], choices: list[tuple[int, int, int]], kills: int
) -> None:
    """Run each lane's actions one after the other, the lanes beside each other, as `choices` say."""
    waiting = [list(lane) for lane in lanes]
    running: list[Program | None] = [None] * len(lanes)
    stream = iter(choices)
    while True:
        for place, queue in enumerate(waiting):
            program = running[place]
            if (program is None or program.ended) and queue:
                name, action = queue.pop(0)
                running[place] = program = Program(name, world, is_change=name != "collect")
                program.start(action)
                if program.fault:
                    raise program.fault
        alive = [program for program in running if program is not None and not program.ended]
        if not alive:
            if not any(waiting):
                return
            continue
        kind, which, burst = next(stream, (2, 0, 1))
        ready = [program for program in alive if program.ready]
        if kind == PASS_TIME or not ready:
            bound = min(program.asleep_until for program in alive) - world.seconds
            pass_time(world, alive, [1.0, 6.0, 31.0, GRACE][which % 4] if ready else bound)
            continue
        program = ready[which % len(ready)]
        if kind == KILL and kills:
            kills -= 1
            program.step(kill=which % 2 == 0, kill_after=which % 2 == 1)
        while burst and program.ready and kind != KILL:
            program.step()
            burst -= 1


def alone(world: World, action: Action) -> None:
    """Run one program to its end; time passes where it sleeps."""
    drive(world, [[("collect", action)]], [], 0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(st.integers(0, 3), min_size=2, max_size=5),
    lanes=lanes,
    collectors=st.integers(1, 2),
    choices=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 7), st.integers(1, 30)), max_size=24),
)
def test_nothing_that_is_referred_to_is_deleted_and_all_garbage_is_in_the_end(
    before: list[int],
    lanes: list[list[tuple[str, Action]]],
    collectors: int,
    choices: list[tuple[int, int, int]],
) -> None:
    world = World()
    watch(world)
    for number, content in enumerate(before, start=1):
        alone(world, publish(content))
        alone(world, promote(number))
    alone(world, collect)
    world.seconds += GRACE
    collecting: list[list[tuple[str, Action]]] = [[("collect", collect)] * 3] * collectors
    drive(world, collecting + lanes, choices, kills=3)
    for _ in range(3):
        alone(world, collect)
        world.seconds += GRACE
    assert files(world) <= needed(world)
    for log in ("versions", "channels/production"):
        newest = max(listed.key for listed in world.list(f"models/digits/{log}/"))
        assert named(world, newest) in files(world)
    assert not [listed.key for listed in world.list("garbage/sha256/") if ".collected" not in listed.key]
