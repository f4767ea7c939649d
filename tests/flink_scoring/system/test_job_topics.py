"""Topics that a job would miss are told in one line, before Flink is asked."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from ferryline.deploy.stack.local import Addresses
from ferryline.flink_scoring.job import main
from ferryline.streams.kafka import ensure_topics
from tests.flink_scoring.commands import Ended, run_command


@pytest.fixture
def name(kafka: Addresses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FERRY_KAFKA", kafka.kafka)
    monkeypatch.setenv("FERRY_STORE", tmp_path.as_uri())
    return f"digits-{uuid.uuid4().hex[:8]}"


def run(folder: Path, text: str) -> Ended:
    file = folder / "digits.toml"
    file.write_text(text)
    return run_command(main, "ferryline.flink_scoring.job", "--pipeline", str(file))


def test_a_source_topic_that_is_not_there(
    name: str, pipeline_text: Callable[[str], str], tmp_path: Path
) -> None:
    ended = run(tmp_path, pipeline_text(name))
    assert ended.code == 3
    assert all(word in ended.error for word in (f"{name}.in", "no topic", "--create --topic"))


def test_a_topic_of_labels_that_is_not_there(
    kafka: Addresses, name: str, pipeline_text: Callable[[str], str], tmp_path: Path
) -> None:
    ensure_topics(kafka.kafka, {f"{name}.in": 1})
    ended = run(tmp_path, f'{pipeline_text(name)}\n[labels]\ntopic = "{name}.truth"\n')
    assert ended.code == 3
    assert all(word in ended.error for word in (f"{name}.truth", "--create --topic"))
