"""A history is the same each time, whatever else is played, and scripts can be cut down and kept."""

from __future__ import annotations

import pytest

from tests.simulation import kept
from tests.simulation.invariants import Invariant
from tests.simulation.kept import Kept
from tests.simulation.kernel import Event, Kernel, Process
from tests.simulation.play import happened
from tests.simulation.profiles import script_of
from tests.simulation.script import Act, Script, Step, shrink
from tests.simulation.store import Fault, Place, Trouble
from tests.simulation.substitutes import simulated

EVERY_PROFILE = range(24)


def trace(seed: int) -> tuple[object, ...]:
    with simulated():
        world = happened(script_of(seed))
    requests = [(process.name, dict(process.requests)) for process in world.operators]
    requests += [(each.process.name, dict(each.process.requests)) for each in world.consumers]
    objects = {key: stored.data for key, (stored, _) in world.store.snapshot().items()}
    return requests, objects, world.store.modified, world.judge.breaches


@pytest.mark.parametrize("seed", EVERY_PROFILE)
def test_a_seed_gives_the_same_history_each_time(seed: int) -> None:
    first = trace(seed)
    trace(seed + 1)
    assert trace(seed) == first


def test_every_act_happens() -> None:
    scripts = [script_of(seed) for seed in range(500)]
    assert {step.act for script in scripts for step in script.steps} == set(Act)


def test_a_script_is_cut_down_to_what_fails() -> None:
    script = script_of(11)

    def fails(smaller: Script) -> bool:
        return any(step.act is Act.ROLLBACK_TO for step in smaller.steps)

    wanted = Script((*script.steps, Step(900.0, Act.ROLLBACK_TO, version=2, wait=9.0)), hosts=script.hosts)
    assert len(shrink(wanted, fails).steps) == 1


def test_a_kept_script_is_read_as_it_was(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "FILE", kept.Path(str(tmp_path)) / "kept.json")
    trouble = Trouble(Fault.SLOW, Place.LOAD, 2, 40.0)
    script = Script(
        (Step(1.0, Act.PROMOTE, version=2, allow=True), Step(2.0, Act.TROUBLE, troubles=(trouble,))),
        signed=True,
        hosts=("a",),
    )
    one = Kept("a fault", 7, Invariant.CONVERGES, script)
    kept.keep(one)
    kept.keep(one)
    assert kept.kept() == [one]


# --- the kernel ---------------------------------------------------------------------------------------


def test_tasks_take_turns_where_they_sleep() -> None:
    kernel, told = Kernel(), list[tuple[str, float]]()
    process = Process(kernel, "one")

    def count(name: str, pause: float) -> None:
        for _ in range(2):
            process.sleep(pause)
            told.append((name, kernel.seconds))

    kernel.spawn(process, lambda: count("slow", 3.0))
    kernel.spawn(process, lambda: count("fast", 2.0))
    kernel.run_until(10.0)
    assert told == [("fast", 2.0), ("slow", 3.0), ("fast", 4.0), ("slow", 6.0)]


def test_an_event_wakes_who_waits_for_it() -> None:
    kernel = Kernel()
    event, woken = Event(kernel), list[tuple[bool, float]]()
    process = Process(kernel, "one")
    kernel.spawn(process, lambda: woken.append((event.wait(), kernel.seconds)))
    kernel.spawn(process, lambda: woken.append((event.wait(1.0), kernel.seconds)))
    kernel.at(5.0, event.set)
    kernel.run_until(10.0)
    assert woken == [(False, 1.0), (True, 5.0)]


def test_a_suspended_process_goes_on_where_it_was() -> None:
    kernel, woken = Kernel(), list[float]()
    process = Process(kernel, "one")

    def sleep() -> None:
        process.sleep(2.0)
        woken.append(kernel.seconds)

    kernel.spawn(process, sleep)
    kernel.at(1.0, lambda: process.suspend(30.0))
    kernel.run_until(100.0)
    assert woken == [31.0]


def test_a_killed_process_does_nothing_more() -> None:
    kernel, done = Kernel(), list[str]()
    process = Process(kernel, "one")

    def work() -> None:
        process.sleep(2.0)
        done.append("work")

    kernel.spawn(process, work)
    kernel.at(1.0, process.kill)
    kernel.run_until(10.0)
    assert (done, process.died_at) == ([], 1.0)
