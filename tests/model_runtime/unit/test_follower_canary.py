"""A follower whose channel has a canary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ferryline.model_runtime.served import ServedModel
from tests.model_runtime.following import Setting, flip_a_bit

KEYS = [f"key-{number}".encode() for number in range(2_000)]


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(tmp_path)
    made.follower.start()
    made.serve(0)
    yield made
    made.follower.stop()


def start_canary(setting: Setting, winner: int, percent: float) -> ServedModel:
    entry = setting.registry.promote("digits", setting.publish(winner), canary=percent)
    setting.witness.wait(lambda witness: witness.swaps[-1][0] == entry.generation)
    served = setting.follower.current
    assert served is not None
    return served


def label_of(served: ServedModel) -> int:
    return int(served.session.run({"input": np.zeros((1, 4), np.float32)})["label"][0])


def test_each_key_gets_one_version_and_the_canary_its_share(setting: Setting) -> None:
    served = start_canary(setting, 1, 20)
    chosen = [served.chosen_for(key) for key in KEYS]
    assert {(one.version, one.generation, label_of(one)) for one in chosen} == {(1, 2, 0), (2, 2, 1)}
    assert 0.15 < sum(one.version == 2 for one in chosen) / len(KEYS) < 0.25
    assert [served.chosen_for(key) for key in KEYS] == chosen
    report = setting.follower.report()
    assert (report.version, report.canary_version, report.canary_percent) == (1, 2, 20)


def test_a_canary_that_is_promoted_serves_all_with_the_session_it_had(setting: Setting) -> None:
    served = start_canary(setting, 1, 20)
    assert served.canary is not None
    entry = setting.registry.promote("digits", 2)
    setting.witness.wait(lambda witness: witness.swaps[-1] == (entry.generation, 2))
    now = setting.follower.current
    assert now is not None
    assert now.canary is None
    assert now.session is served.canary.model.session
    assert setting.follower.report().canary_version is None


def test_a_rollback_takes_the_canary_back_and_nothing_else(setting: Setting) -> None:
    served = start_canary(setting, 1, 20)
    entry = setting.registry.rollback("digits", reason="worse")
    assert (entry.version, entry.held, entry.canary) == (1, True, None)
    setting.witness.wait(lambda witness: witness.swaps[-1] == (entry.generation, 1))
    now = setting.follower.current
    assert now is not None
    assert now.session is served.session
    assert now.since == served.since
    assert {now.chosen_for(key).version for key in KEYS} == {1}


def test_a_canary_that_a_gate_refuses_leaves_everything_as_it_was(setting: Setting) -> None:
    bad = setting.publish(1)
    setting.store.down = True
    setting.registry.promote("digits", bad, canary=50)
    flip_a_bit(setting, bad)
    setting.store.down = False
    setting.witness.wait(lambda witness: bool(witness.refusals))
    served = setting.follower.current
    assert served is not None
    assert (served.generation, served.canary) == (1, None)
    assert [refusal.target.version for refusal in setting.witness.refusals] == [bad]
    (record,) = setting.registry.refusals("digits").newest()
    digest = setting.registry.versions("digits").get(bad).blob.digest
    assert (record.generation, record.version, record.blob_digest) == (2, bad, digest)
