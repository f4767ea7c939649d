"""The follower on real sessions and a memory store, with faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ferryline.model_runtime.cache import BlobCache
from ferryline.model_runtime.follower import Follower
from ferryline.model_runtime.heartbeat import HeartbeatReporter
from ferryline.model_runtime.identity import consumer_name
from ferryline.model_runtime.session import OnnxSession
from ferryline.registry.documents import ServedModelReport
from tests.model_runtime.following import (
    FAST,
    Setting,
    alter_manifest,
    blob_key,
    flip_a_bit,
    remove_blob,
    rewrite,
    truncate,
    write_newer_schema,
)
from tests.onnx_models import golden_rows, inspect_model, linear_classifier
from tests.support.waiting import DEADLINE, wait_for


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Setting]:
    made = Setting(tmp_path)
    made.follower.start()
    yield made
    made.follower.stop()


def test_versions_are_swapped_and_rolled_back(setting: Setting) -> None:
    assert setting.follower.current is None
    for winner in (0, 1, 2):
        setting.serve(winner)
        assert setting.label() == winner
    entry = setting.registry.rollback("digits")
    setting.witness.wait(lambda witness: witness.swaps[-1] == (entry.generation, 2))
    assert setting.label() == 1
    assert [swap[0] for swap in setting.witness.swaps] == [1, 2, 3, 4]
    kept = setting.follower.serving(3)
    assert kept is not None
    assert setting.follower.serving(1) is None


def test_whoever_holds_a_model_keeps_its_session(setting: Setting) -> None:
    setting.serve(0)
    held = setting.follower.current
    assert held is not None
    for winner in (1, 2, 1, 2):
        setting.serve(winner)
    assert int(held.session.run({"input": np.zeros((1, 4), np.float32)})["label"][0]) == 0


def test_a_follower_that_is_behind_takes_only_the_newest(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    for winner in (0, 1, 2):
        setting.registry.promote("digits", setting.publish(winner))
    setting.follower.start()
    setting.witness.wait(lambda witness: witness.swaps == [(3, 3)])
    setting.follower.stop()


@pytest.mark.parametrize(
    ("damage", "gate", "text"),
    [
        (flip_a_bit, "digest", "corrupt, truncated or was replaced"),
        (truncate, "digest", "100 bytes"),
        (write_newer_schema, "schema", "schema version 9.0"),
        (alter_manifest, "digest", "not the one that was promoted"),
    ],
)
def test_a_damaged_version_is_refused_and_the_last_good_one_goes_on(
    setting: Setting, damage: Callable[[Setting, int], None], gate: str, text: str
) -> None:
    setting.serve(0)
    bad = setting.publish(1)
    # the entry is written before the damage: a registry does not promote what it cannot read
    setting.store.down = True
    setting.registry.promote("digits", bad)
    damage(setting, bad)
    setting.store.down = False
    setting.witness.wait(lambda witness: bool(witness.refusals))
    refusal = setting.witness.refusals[0]
    assert (refusal.gate, refusal.target.generation) == (gate, 2)
    assert text in refusal.reason
    assert setting.label() == 0
    report = setting.follower.report()
    assert (report.generation, report.refused_generation, report.refused_gate) == (1, 2, gate)
    setting.serve(2)
    assert setting.label() == 2
    assert setting.follower.report().last_error is None


def test_a_file_that_is_missing_is_waited_for_and_said_so(setting: Setting) -> None:
    setting.serve(0)
    late = setting.publish(1)
    file = setting.memory.get(blob_key(setting, late)).data
    setting.store.down = True
    setting.registry.promote("digits", late)
    remove_blob(setting, late)
    setting.store.down = False
    setting.witness.wait(lambda witness: any("is missing" in reason for reason in witness.failures))
    setting.witness.wait(lambda witness: len(witness.failures) > 4)
    assert setting.label() == 0
    report = setting.follower.report()
    assert (report.generation, report.refused_generation) == (1, None)
    assert report.failures > 2
    assert "publish the same file again" in (report.last_error or "")
    setting.memory.put(blob_key(setting, late), file)
    setting.witness.wait(lambda witness: witness.swaps[-1] == (2, late))
    assert setting.follower.report().failures == 0


def test_golden_rows_that_do_not_hold_are_refused(setting: Setting) -> None:
    setting.serve(0)
    setting.registry.promote("digits", setting.publish(1, golden=golden_rows(winner=2)))
    setting.witness.wait(lambda witness: bool(witness.refusals))
    assert setting.witness.refusals[0].gate == "golden-rows"
    assert setting.label() == 0


def test_a_version_without_golden_rows_is_warmed_all_the_same(setting: Setting) -> None:
    data = linear_classifier(winner=2)
    version = setting.registry.publish("digits", data, inspect_model(data)).version
    setting.registry.promote("digits", version)
    setting.witness.wait(lambda witness: bool(witness.swaps))
    assert setting.label() == 2


def test_another_input_shape_is_refused_unless_it_was_allowed(setting: Setting) -> None:
    setting.serve(0)
    wide = setting.publish(1, features=5)
    entry = setting.registry.promote("digits", wide, allow_contract_change=True)
    setting.witness.wait(lambda witness: witness.swaps[-1][0] == entry.generation)
    served = setting.follower.current
    assert served is not None
    assert served.manifest.inputs[0].shape == (-1, 5)


def test_an_entry_that_slips_another_shape_in_is_refused(setting: Setting) -> None:
    setting.serve(0)
    wide = setting.publish(1, features=5)
    setting.store.down = True
    setting.registry.promote("digits", wide, allow_contract_change=True)
    rewrite(setting, "models/digits/channels/production/0000000002.json", contract_change=False)
    setting.store.down = False
    setting.witness.wait(lambda witness: bool(witness.refusals))
    assert setting.witness.refusals[0].gate == "contract"
    assert "had shape [-1, 4] and has [-1, 5]" in setting.witness.refusals[0].reason


def test_a_store_that_is_down_changes_nothing_for_callers(setting: Setting) -> None:
    setting.serve(0)
    setting.store.down = True
    setting.witness.wait(lambda witness: len(witness.failures) >= 2)
    assert setting.label() == 0
    assert setting.follower.report().last_error == "no answer"
    setting.store.down = False
    setting.serve(1)
    assert setting.label() == 1


def test_a_store_that_is_down_at_the_start_is_waited_for(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    setting.store.down = True
    setting.follower.start()
    setting.witness.wait(lambda witness: bool(witness.failures))
    assert setting.follower.wait_until_serving(0) is None
    assert setting.follower.report().phase == "following"
    setting.store.down = False
    setting.serve(1)
    assert setting.follower.wait_until_serving(DEADLINE) is not None
    setting.follower.stop()


def test_an_altered_log_is_not_followed(setting: Setting) -> None:
    setting.serve(0)
    setting.store.down = True
    setting.registry.promote("digits", setting.publish(1))
    rewrite(setting, "models/digits/channels/production/0000000002.json", previous="sha256:" + "0" * 64)
    setting.store.down = False
    setting.witness.wait(lambda witness: any("does not follow" in reason for reason in witness.failures))
    assert setting.label() == 0


def test_the_cache_is_private_and_a_damaged_file_is_fetched_again(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    setting.registry.promote("digits", setting.publish(0))
    setting.follower.start()
    setting.witness.wait(lambda witness: bool(witness.swaps))
    setting.follower.stop()
    folder = tmp_path / "cache" / "blobs"
    assert folder.stat().st_mode & 0o777 == 0o700
    (cached,) = folder.glob("*.onnx")
    cached.write_bytes(b"damaged")
    again = Follower(setting.registry, "digits", cache=tmp_path / "cache", settings=FAST)
    again.start()
    assert again.wait_until_serving(DEADLINE) is not None
    again.stop()
    assert cached.read_bytes() == linear_classifier(winner=0)


def test_heartbeats_say_what_serves_and_end_with_the_process(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    name = consumer_name("test")
    reporter = HeartbeatReporter(
        setting.registry, consumer=name, role="test", followers=[setting.follower], interval=0.01
    )
    setting.follower.start()
    reporter.start()
    setting.serve(0)

    def beaten() -> bool:
        return any(
            report.generation == 1
            for heartbeat in setting.registry.consumers.all()
            for report in heartbeat.models
        )

    wait_for(beaten, "the heartbeat")
    reporter.stop()
    setting.follower.stop()
    assert list(setting.registry.consumers.all()) == []


def test_an_allowed_change_of_contract_is_remembered_until_something_serves_after_it(
    setting: Setting,
) -> None:
    setting.serve(0)
    setting.store.down = True
    setting.registry.promote("digits", setting.publish(0, features=5), allow_contract_change=True)
    setting.registry.promote("digits", broken := setting.publish(1, features=5))
    flip_a_bit(setting, broken)
    setting.store.down = False
    setting.witness.wait(lambda witness: bool(witness.refusals))
    assert setting.witness.refusals[0].gate == "digest"
    ordinary = setting.registry.promote("digits", setting.publish(2, features=5))
    assert not ordinary.contract_change
    setting.witness.wait(lambda witness: witness.swaps[-1][0] == ordinary.generation)
    setting.store.down = True
    setting.registry.promote("digits", setting.publish(0, features=6), allow_contract_change=True)
    rewrite(setting, "models/digits/channels/production/0000000005.json", contract_change=False)
    setting.store.down = False
    setting.witness.wait(lambda witness: len(witness.refusals) == 2)
    assert setting.witness.refusals[1].gate == "contract"


@pytest.mark.parametrize("label", [2**63, "one", [1, 2]])
def test_golden_rows_that_do_not_fit_the_dtype_are_refused(setting: Setting, label: object) -> None:
    setting.serve(0)
    rows = golden_rows(winner=1)
    misfit = rows.model_copy(update={"outputs": {**rows.outputs, "label": [label, 1]}})
    setting.registry.promote("digits", setting.publish(1, golden=misfit))
    setting.witness.wait(lambda witness: bool(witness.refusals))
    assert setting.witness.refusals[0].gate == "golden-rows"


def test_a_file_that_vanishes_from_the_cache_is_fetched_again(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned: list[Path] = []

    class Pruning(OnnxSession):
        def __init__(self, path: Path) -> None:
            if not pruned:
                path.unlink()
                pruned.append(path)
            super().__init__(path)

    monkeypatch.setattr("ferryline.model_runtime.follower.loading.OnnxSession", Pruning)
    setting.serve(0)
    assert pruned
    assert setting.witness.refusals == []
    assert "vanished" in setting.witness.failures[0]


def test_a_cache_that_cannot_be_used_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    setting = Setting(tmp_path)
    setting.registry.promote("digits", setting.publish(0))
    setting.follower.start()
    setting.witness.wait(lambda witness: bool(witness.failures))
    setting.follower.stop()
    assert "name another with FERRY_CACHE" in setting.witness.failures[0]


def test_a_cache_folder_is_made_private_before_it_is_trusted(tmp_path: Path) -> None:
    folder = tmp_path / "blobs"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    assert BlobCache(tmp_path).find("sha256:" + "0" * 64) is None
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_heartbeat_outlives_what_it_cannot_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(tmp_path)
    calls: list[int] = []

    def report() -> ServedModelReport:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a fault nobody thought of")
        return Follower.report(setting.follower)

    monkeypatch.setattr(setting.follower, "report", report)
    reporter = HeartbeatReporter(
        setting.registry, consumer="c", role="test", followers=[setting.follower], interval=0.01
    )
    reporter.start()
    wait_for(lambda: list(setting.registry.consumers.all()), "the heartbeat after the one that failed")
    reporter.stop()
