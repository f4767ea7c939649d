"""A trainer goes on with what one of the last release under the former name had learned."""

from __future__ import annotations

from pathlib import Path

import pytest

from ferryline.registry.settings import load_settings
from ferryline.streams.pipeline import load_pipeline
from ferryline.trainer.positions import Placement
from ferryline.trainer.state import StateFile
from ferryline.trainer.training import Training
from tests.support import former_release


def test_training_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = former_release.made(tmp_path, monkeypatch)
    pipeline = load_pipeline(former_release.PIPELINE)
    found = StateFile(load_settings().state / "trainer", pipeline).load()
    assert found is not None
    training = Training(pipeline)
    training.restore(*found)
    assert training.progress.records == former_release.RECORDS
    assert training.progress.last_version == former_release.VERSION
    assert training.learner.fitted
    # it knew no topic's id: the first topic that is found gives it
    assert (training.progress.topic_id, training.progress.past) == ("", ())
    training.place(Placement("0f" * 16, training.progress.next))
    assert (training.progress.topic_id, training.progress.past) == ("0f" * 16, ())
    assert (home.present("state") / "trainer" / "digits.state").exists()
