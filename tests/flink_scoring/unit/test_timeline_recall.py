"""Older generations, loaded again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from ferryline.flink_scoring.binding import require_fit
from ferryline.flink_scoring.timeline.models import assigned_to
from ferryline.flink_scoring.timeline.recall import TRIES, Recall
from ferryline.flink_scoring.timeline.rules import Assigned
from ferryline.model_runtime.facts import read_facts
from ferryline.registry.catalogue import Registry
from ferryline.registry.errors import RefusedError, UntrustedAnswerError
from ferryline.streams.pipeline import Pipeline
from tests.faulty_store import HidingStore

MakeModel = Callable[..., bytes]


def test_an_older_generation_comes_back_with_its_canary_and_through_the_gate(
    registry: Registry,
    constant_model: MakeModel,
    digits_pipeline: Callable[[], Pipeline],
    tmp_path: Path,
) -> None:
    pipeline = digits_pipeline()
    versions = [registry.publish("digits", data := constant_model(n), read_facts(data)) for n in (1, 2, 3)]
    entries = [registry.promote("digits", 1), registry.promote("digits", 2, canary=30)]
    registry.promote("digits", 3)
    recall = Recall(
        registry,
        "digits",
        "production",
        cache=tmp_path,
        accept=lambda facts: require_fit(facts, pipeline),
        kept=lambda _: None,
    )
    second = Assigned("digits:production", 2, 1, versions[0].blob.digest)
    served = recall.load(second)
    assert (served.version, served.generation, assigned_to(served)) == (1, entries[1].generation, second)
    assert served.canary is not None
    assert served.canary.model.version == 2
    for changed in (
        Assigned("other:production", 2, 1, second.digest),
        Assigned("digits:production", 9, 1, second.digest),
        Assigned("digits:production", 2, 1, versions[2].blob.digest),
    ):
        with pytest.raises(RefusedError):
            load_until_refused(recall, changed)


def load_until_refused(recall: Recall, wanted: Assigned) -> None:
    """Asks as often as it takes for what is gone to count as gone."""
    for _ in range(TRIES):
        with contextlib.suppress(UntrustedAnswerError):
            recall.load(wanted)


def test_an_older_generation_that_the_store_hides_for_a_moment_comes_back(
    registry: Registry, constant_model: MakeModel, tmp_path: Path
) -> None:
    data = constant_model(1)
    version = registry.publish("digits", data, read_facts(data))
    registry.promote("digits", 1)
    wanted = Assigned("digits:production", 1, 1, version.blob.digest)
    for part in ("/channels/", "/versions/", "blobs/"):
        hides = HidingStore(registry.store, part)
        recall = Recall(
            Registry(hides), "digits", "production",
            cache=tmp_path / part.strip("/"), accept=lambda _: None, kept=lambda _: None,
        )  # fmt: skip
        with pytest.raises(UntrustedAnswerError):
            recall.load(wanted)
        assert recall.load(wanted).generation == 1
