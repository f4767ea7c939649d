"""What stays warm: the rule, and the follower on real sessions."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.follower import FollowerSettings
from model_runtime.memory import SESSION_BYTES, TREE_FACTOR, session_bytes
from model_runtime.pool import MIB, WarmLimits, too_many
from tests.model_runtime.following import Setting

LIMITS = WarmLimits(versions=5, size=64 * MIB)

names = st.text("abcdefgh", min_size=1, max_size=1)
sizes_by_name = st.dictionaries(names, st.integers(0, 100), max_size=8)
limits = st.builds(WarmLimits, versions=st.integers(0, 8), size=st.integers(0, 400))


@given(sizes=sizes_by_name, protected=st.frozensets(names), limits=limits)
def test_what_goes_is_never_protected_and_went_longest_ago(
    sizes: dict[str, int], protected: frozenset[str], limits: WarmLimits
) -> None:
    gone = list(too_many(sizes, protected, limits))
    assert protected.isdisjoint(gone)
    stay = [name for name in sizes if name not in gone]
    free = [name for name in sizes if name not in protected]
    assert gone == free[: len(gone)]
    fits = len(stay) <= limits.versions and sum(sizes[name] for name in stay) <= limits.size
    assert fits or set(stay) <= protected


@given(sizes=sizes_by_name, protected=st.frozensets(names), limits=limits)
def test_nothing_goes_that_could_stay(
    sizes: dict[str, int], protected: frozenset[str], limits: WarmLimits
) -> None:
    gone = list(too_many(sizes, protected, limits))
    if gone:
        stay = [name for name in sizes if name not in gone[:-1]]
        assert len(stay) > limits.versions or sum(sizes[name] for name in stay) > limits.size


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
