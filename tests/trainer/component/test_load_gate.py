"""What the trainer exports, judged by the load gate in its own processes."""

from __future__ import annotations

from collections.abc import Callable

from ferryline.model_runtime.facts import read_facts
from ferryline.model_runtime.gate import Gate
from ferryline.streams.pipeline import Pipeline
from ferryline.trainer.batches import FetchedBatch
from ferryline.trainer.candidate import export_candidate
from ferryline.trainer.positions import Placement
from ferryline.trainer.training import Training


def test_what_is_exported_passes_the_load_gate(
    digits: Pipeline, digit_values: list[bytes], make_batch: Callable[..., FetchedBatch]
) -> None:
    training = Training(digits)
    training.place(Placement(offsets={0: 0}))
    for begin in range(0, 1000, 50):
        training.step(make_batch(digit_values[begin : begin + 50], first=begin))
    exported = export_candidate(training)
    assert Gate().admit(exported.data, exported.training.golden) == read_facts(exported.data)
