"""What stays warm: the rule, and the follower on real sessions."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.model_runtime.follower import Follower, FollowerSettings
from ferryline.model_runtime.memory import SESSION_BYTES, TREE_FACTOR, session_bytes
from ferryline.model_runtime.pool import MIB, WarmLimits, WarmShelf, surplus
from ferryline.registry import Registry
from ferryline.registry.stores.memory import MemoryStore
from tests.model_runtime.following import Setting, Witness
from tests.onnx_models import inspect_model, linear_classifier

LIMITS = WarmLimits(versions=5, size=64 * MIB)

names = st.text("abcdefgh", min_size=1, max_size=1)
sizes_by_name = st.dictionaries(names, st.integers(0, 100), max_size=8)
most = st.integers(0, 400)


@given(sizes=sizes_by_name, protected=st.frozensets(names), most=most)
def test_what_goes_is_never_protected_and_went_longest_ago(
    sizes: dict[str, int], protected: frozenset[str], most: int
) -> None:
    gone = list(surplus(sizes, protected, most))
    assert protected.isdisjoint(gone)
    stay = [name for name in sizes if name not in gone]
    free = [name for name in sizes if name not in protected]
    assert gone == free[: len(gone)]
    assert sum(sizes[name] for name in stay) <= most or set(stay) <= protected


@given(sizes=sizes_by_name, protected=st.frozensets(names), most=most)
def test_nothing_goes_that_could_stay(sizes: dict[str, int], protected: frozenset[str], most: int) -> None:
    gone = list(surplus(sizes, protected, most))
    if gone:
        assert sum(cost for name, cost in sizes.items() if name not in gone[:-1]) > most


def test_the_memory_of_a_session_is_estimated_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(b"x" * 1000)
    assert session_bytes(file) == SESSION_BYTES + 1000
    file.write_bytes(b"x" * 1000 + b"TreeEnsembleClassifier")
    assert session_bytes(file) == SESSION_BYTES + 1022 * TREE_FACTOR
    file.write_bytes(b"")
    assert session_bytes(file) == SESSION_BYTES


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(tmp_path, FollowerSettings(poll_interval=0.01, warm=LIMITS))
    made.follower.start()
    yield made
    made.follower.stop()


def warm(setting: Setting) -> list[int]:
    return [served.version for served in setting.follower.warm]


def to_version(setting: Setting, version: int) -> int:
    generation = setting.registry.promote("digits", version).generation
    setting.witness.wait(lambda witness: witness.swaps[-1] == (generation, version))
    return generation


def test_recent_versions_stay_in_the_order_they_served(setting: Setting) -> None:
    for turn in range(7):
        setting.serve(turn % 3)
    assert warm(setting) == [7, 6, 5, 4, 3]
    to_version(setting, 4)
    assert warm(setting) == [4, 7, 6, 5, 3]
    setting.serve(0)
    assert warm(setting) == [8, 4, 7, 6, 5]
    assert setting.follower.warm_size == sum(served.session.memory for served in setting.follower.warm)


def test_going_back_by_several_versions_fetches_and_loads_nothing(setting: Setting) -> None:
    for winner in (0, 1, 2, 1):
        setting.serve(winner)
    kept = setting.follower.serving(1)
    assert kept is not None
    setting.reads.keys.clear()
    to_version(setting, 1)
    current = setting.follower.current
    assert current is not None
    assert (current.session is kept.session, current.generation, setting.label()) == (True, 5, 0)
    touched = {key.rsplit("/", 1)[0] for key in setting.reads.keys}
    assert touched == {"models/digits/channels/production"}, "neither manifests nor files are read again"


def test_a_dropped_version_gives_its_session_back(setting: Setting) -> None:
    setting.serve(0)
    first = setting.follower.current
    assert first is not None
    session = weakref.ref(first.session)
    del first
    for winner in (1, 2, 1, 2, 1):
        setting.serve(winner)
    setting.witness.wait(lambda witness: len(witness.swaps) == 6)
    gc.collect()
    assert session() is None
    assert warm(setting) == [6, 5, 4, 3, 2]


def test_what_served_before_stays_however_small_the_budget(tmp_path: Path) -> None:
    setting = Setting(tmp_path, FollowerSettings(poll_interval=0.01, warm=WarmLimits(versions=5, size=0)))
    setting.follower.start()
    for winner in (0, 1, 2):
        setting.serve(winner)
    assert warm(setting) == [3, 2]
    # a hold serves the same session under another generation: what served before it is still the same
    held = setting.registry.hold("digits").generation
    setting.witness.wait(lambda witness: witness.swaps[-1] == (held, 3))
    assert warm(setting) == [3, 2]
    setting.follower.stop()


def test_a_canary_stays_and_goes_with_its_trial(tmp_path: Path) -> None:
    setting = Setting(tmp_path, FollowerSettings(poll_interval=0.01, warm=WarmLimits(versions=2, size=0)))
    setting.follower.start()
    setting.serve(0)
    setting.serve(1)
    trial = setting.registry.promote("digits", setting.publish(2), canary=10).generation
    setting.witness.wait(lambda witness: witness.swaps[-1] == (trial, 2))
    assert warm(setting) == [2, 3, 1]
    back = setting.registry.rollback("digits").generation
    setting.witness.wait(lambda witness: witness.swaps[-1] == (back, 2))
    assert warm(setting) == [2, 1]
    setting.follower.stop()


# --- several channels on one shelf ---------------------------------------------------------------


class Shelved:
    """Followers of several channels of one model, with a budget for as many versions as it says."""

    def __init__(self, folder: Path, sessions: float, *channels: str) -> None:
        self.registry = Registry(MemoryStore(), actor="tester")
        self.shelf = WarmShelf(int(sessions * (SESSION_BYTES + 2000)))
        self.trims: Counter[str] = Counter()
        self.witnesses = {name: _TrimWitness(name, self.trims) for name in channels}
        self.followers = {
            name: Follower(
                self.registry,
                "digits",
                name,
                cache=folder / "cache",
                settings=FollowerSettings(poll_interval=0.01, warm=LIMITS),
                observer=self.witnesses[name],
                shelf=self.shelf,
            )
            for name in channels
        }

    def __enter__(self) -> Self:
        for follower in self.followers.values():
            follower.start()
        return self

    def __exit__(self, *_: object) -> None:
        for follower in self.followers.values():
            follower.stop()

    def serve(self, channel: str, *versions: int) -> None:
        for version in versions:
            generation = self.registry.promote("digits", version, channel=channel).generation
            self.witnesses[channel].wait(lambda witness, to=(generation, version): witness.swaps[-1:] == [to])

    def publish(self, count: int) -> None:
        for _ in range(count):
            data = linear_classifier(4, winner=1)
            self.registry.publish("digits", data, inspect_model(data))

    def warm(self, channel: str) -> list[int]:
        return [served.version for served in self.followers[channel].warm]


class _TrimWitness(Witness):
    def __init__(self, name: str, trims: Counter[str]) -> None:
        super().__init__()
        self._name, self._trims = name, trims

    def trimmed(self) -> None:
        self._trims[self._name] += 1


def test_one_budget_holds_for_all_channels_and_what_served_longest_ago_goes(tmp_path: Path) -> None:
    with Shelved(tmp_path, 6, "a", "b") as shelved:
        shelved.publish(8)
        shelved.serve("a", 1, 2, 3, 4)
        assert shelved.warm("a") == [4, 3, 2, 1]
        shelved.serve("b", 5, 6)
        assert (shelved.warm("a"), shelved.trims) == ([4, 3, 2, 1], {})
        shelved.serve("b", 7)
        assert (shelved.warm("a"), shelved.warm("b")) == ([4, 3, 2], [7, 6, 5])
        shelved.serve("b", 8)
        assert (shelved.warm("a"), shelved.warm("b")) == ([4, 3], [8, 7, 6, 5])
        assert shelved.trims == {"a": 2}
        # whose turn it is goes by when it served, not by the channel: first 3 of a, and then 5 of b
        shelved.serve("a", 1)
        assert (shelved.warm("a"), shelved.warm("b")) == ([1, 4], [8, 7, 6, 5])
        shelved.serve("a", 2)
        assert (shelved.warm("a"), shelved.warm("b")) == ([2, 1, 4], [8, 7, 6])


def test_what_serves_and_what_served_before_stays_in_every_channel(tmp_path: Path) -> None:
    with Shelved(tmp_path, 0, "a", "b") as shelved:
        shelved.publish(6)
        shelved.serve("a", 1, 2, 3)
        shelved.serve("b", 4, 5, 6)
        assert (shelved.warm("a"), shelved.warm("b")) == ([3, 2], [6, 5])


def test_a_version_in_two_channels_is_loaded_and_counted_once(tmp_path: Path) -> None:
    with Shelved(tmp_path, 3, "staging", "production") as shelved:
        shelved.publish(4)
        shelved.serve("staging", 1, 2, 3)
        shelved.serve("production", 3)
        staging, production = (shelved.followers[name].current for name in ("staging", "production"))
        assert staging is not None
        assert production is not None
        assert production.session is staging.session
        assert (production.channel, staging.channel) == ("production", "staging")
        assert shelved.warm("staging") == [3, 2, 1], "three sessions, though four versions are warm"
        shelved.serve("staging", 4)
        assert (shelved.warm("staging"), shelved.warm("production")) == ([4, 3, 2], [3])


def test_a_follower_that_stopped_takes_no_room(tmp_path: Path) -> None:
    with Shelved(tmp_path, 3, "a", "b") as shelved:
        shelved.publish(5)
        shelved.serve("a", 1, 2)
        shelved.followers["a"].stop()
        shelved.serve("b", 3, 4, 5)
        assert shelved.warm("b") == [5, 4, 3]
        assert shelved.trims == {}
