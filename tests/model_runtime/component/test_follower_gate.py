"""A follower whose versions are judged in the processes of the load gate."""

from __future__ import annotations

from pathlib import Path

from tests.model_runtime.following import Setting
from tests.onnx_models import golden_rows


def test_what_passes_the_gate_serves_and_what_does_not_is_refused(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    setting.follower.start()
    setting.serve(0)
    wrong = setting.registry.promote("digits", setting.publish(1, golden=golden_rows(winner=2)))
    setting.witness.wait(lambda witness: bool(witness.refusals))
    (refusal,) = setting.witness.refusals
    assert (refusal.gate, refusal.target.generation) == ("golden-rows", wrong.generation)
    assert setting.label() == 0
    setting.serve(2)
    assert setting.label() == 2
    setting.follower.stop()
