"""What a scoring job cannot work with is told in one line, before Kafka or Flink is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ferryline.flink_scoring.job import main
from tests.flink_scoring.commands import run_command


@pytest.fixture
def file(tmp_path: Path, pipeline_text: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FERRY_STORE", tmp_path.as_uri())
    monkeypatch.setenv("FERRY_KAFKA", "127.0.0.1:1")
    path = tmp_path / "digits.toml"
    path.write_text(pipeline_text("digits"))
    return path


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 6, ["127.0.0.1:1 cannot be reached", "FERRY_KAFKA"]),
        (["--kafka", "127.0.0.1:2"], 6, ["127.0.0.1:2 cannot be reached", "FERRY_KAFKA"]),
        (["--store", "ftp://x"], 2, ["ftp", "s3://"]),
        (["--pipeline", "digits.toml"], 2, ["two pipelines are called digits"]),
    ],
)
def test_what_cannot_work_is_told_in_one_line(
    file: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, words: list[str]
) -> None:
    monkeypatch.chdir(file.parent)
    ended = run_command(main, "ferryline.flink_scoring.job", "--pipeline", str(file), *arguments)
    assert ended.code == code
    assert all(word in ended.error for word in words)
