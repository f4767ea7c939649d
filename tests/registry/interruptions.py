"""Writers that are killed or frozen at their steps: the log stays whole, and it tells what happened.

Subclass `Interruptions` and give a `store_url` fixture, and one of the module with the name `victims`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import count

import pytest

from ferryline.registry import Registry, keys
from ferryline.registry.documents import ChannelEntry
from ferryline.registry.errors import ConflictError
from ferryline.registry.stores import Store, open_store
from ferryline.registry.stores.memory import MemoryStore
from tests.faulty_store import Observed, Verb
from tests.registry.histories import facts
from tests.registry.log_invariants import log_of, violations
from tests.registry.victims import CALLS, MODEL, Order, Victims

CONFLICT = 4


class Interruptions:
    every = 1
    """One in so many steps is tried, beside those around each write and the last one."""

    @pytest.fixture
    def registry(self, store_url: str) -> Registry:
        return served(open_store(store_url))

    @pytest.mark.parametrize("call", ["promote", "rollback", "hold"])
    def test_a_change_that_is_killed_is_in_the_log_or_is_not(
        self, registry: Registry, store_url: str, victims: Victims, call: str
    ) -> None:
        written: dict[int, bool] = {}
        for step in steps(call, self.every):
            before = registry.channel(MODEL).require_head().generation
            ending = victims.run(Order(call, store_url, step, name=f"step {step}"))
            if ending.exited is not None:
                assert ending.exited == 0
                written[step] = True
                break
            assert ending.killed == signal.SIGKILL
            written[step] = registry.channel(MODEL).require_head().reason == f"step {step}"
            # so whoever wonders promotes again with the generation they knew, and the log decides
            try:
                registry.promote(MODEL, 1, expect=before, force=True)
            except ConflictError:
                assert written[step]
                registry.promote(MODEL, 1, force=True)
            else:
                assert not written[step]
            assert registry.channel(MODEL).require_head().version == 1
        require_switch(list(written.values()))
        reasons = [entry.reason for entry in require_whole(registry)]
        assert sorted(reason for reason in reasons if reason) == sorted(
            f"step {step}" for step, kept in written.items() if kept
        )

    @pytest.mark.parametrize("call", ["promote", "rollback"])
    def test_a_change_that_is_frozen_while_others_go_on_is_first_or_a_conflict(
        self, registry: Registry, store_url: str, victims: Victims, call: str
    ) -> None:
        codes: dict[int, int] = {}
        elsewhere: set[str] = set()
        for step in steps(call, self.every):
            registry.promote(MODEL, 2, force=True)
            registry.promote(MODEL, 1, force=True)
            frozen = victims.run(Order(call, store_url, step, "SIGSTOP", f"step {step}"))
            if frozen.exited is not None:
                assert frozen.exited == 0
                break
            assert frozen.frozen == signal.SIGSTOP
            elsewhere.add(registry.promote(MODEL, 1, reason="elsewhere", force=True).op_id)
            ending = victims.resume(frozen)
            assert ending.exited in {0, CONFLICT}
            codes[step] = ending.exited
        # done before the other looks, then overtaken, then done before the other came
        told = list(codes.values())
        assert set(told) == {0, CONFLICT}
        assert (told[0], told[-1]) == (0, 0)
        history = require_whole(registry)
        assert elsewhere <= {entry.op_id for entry in history}
        reasons = [entry.reason for entry in history]
        for each, code in codes.items():
            assert reasons.count(f"step {each}") == (code == 0)

    def test_a_publisher_that_is_killed_leaves_a_whole_version_or_none(
        self, registry: Registry, store_url: str, victims: Victims
    ) -> None:
        versions, written = registry.versions(MODEL), [False]
        for step in steps("publish", self.every):
            before = versions.newest()
            ending = victims.run(Order("publish", store_url, step, name=f"step {step}"))
            numbers = versions.numbers()
            assert numbers == list(range(1, len(numbers) + 1))
            newest = versions.get(versions.newest())
            assert versions.load(newest)
            if ending.exited is not None:
                assert (ending.exited, newest.actor) == (0, f"step {step}")
                break
            written.append(newest.actor == f"step {step}")
            assert versions.newest() == before + written[-1]
            # the same file again is what a person does next
            again = registry.publish(MODEL, f"step {step}".encode(), facts())
            assert again.version == before + written[-1] + 1
            assert versions.load(again) == f"step {step}".encode()
        require_switch(written)

    def test_a_publisher_that_is_frozen_takes_the_next_number(
        self, registry: Registry, store_url: str, victims: Victims
    ) -> None:
        versions = registry.versions(MODEL)
        for step in steps("publish", self.every):
            frozen = victims.run(Order("publish", store_url, step, "SIGSTOP", f"step {step}"))
            if frozen.exited is not None:
                break
            elsewhere = registry.publish(MODEL, b"elsewhere", facts())
            ending = victims.resume(frozen)
            assert ending.exited == 0
            numbers = versions.numbers()
            assert numbers == list(range(1, len(numbers) + 1))
            assert versions.get(elsewhere.version).digest == elsewhere.digest
            actors = [versions.get(number).actor for number in numbers[-2:]]
            assert sorted(actors) == [f"step {step}", "tester"]
        assert frozen.exited == 0


def served(store: Store) -> Registry:
    """Returns a registry with two versions, of which the first serves after the second."""
    made = Registry(store, actor="tester")
    for number in (1, 2):
        made.publish(MODEL, b"model %d" % number, facts())
    made.promote(MODEL, 2)
    made.promote(MODEL, 1)
    return made


def steps(call: str, every: int) -> Iterator[int]:
    """Yields the steps of a call to stop it at; the last ones lie beyond its end.

    Args:
        call: a key of `CALLS`.
        every: one in so many steps is wanted, and those around each write.
    """
    if every == 1:
        yield from count(1)
        return
    seen = _WriteSteps(served(MemoryStore()).store)
    CALLS[call](seen, "seen")
    near = {near for step in seen.writes for near in (step - 1, step, step + 1)}
    yield from (step for step in range(1, seen.steps) if step % every == 1 or step in near)
    yield from count(seen.steps)


class _WriteSteps(Observed):
    """Learns which steps of a call are those before and after a write."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.steps = 0
        self.writes: list[int] = []

    def before(self, verb: Verb, key: str) -> None:
        self._count(verb)

    def after(self, verb: Verb, key: str) -> None:
        self._count(verb)

    def _count(self, verb: Verb) -> None:
        self.steps += 1
        if verb in {Verb.PUT_IF_ABSENT, Verb.PUT, Verb.PUT_IF_UNCHANGED}:
            self.writes.append(self.steps)


def require_whole(registry: Registry) -> list[ChannelEntry]:
    """Returns the history, once it was found to break no promise."""
    found = violations(log_of(registry.store, keys.channel(MODEL, "production")), [])
    assert [fault for fault in found if not fault.startswith("nobody wanted")] == []
    return list(registry.channel(MODEL).history())


def require_switch(written: list[bool]) -> None:
    """Require that nothing is written before some step, and everything from there on."""
    assert written == sorted(written)
    assert set(written) == {False, True}
