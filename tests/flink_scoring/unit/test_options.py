from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ferryline.flink_scoring.job import app
from ferryline.flink_scoring.options import Guarantee, require_process_mode, resolve_options
from ferryline.flink_scoring.positions import Start
from ferryline.registry.errors import UsageError


@pytest.fixture
def file(tmp_path: Path, pipeline_text: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("FERRY_STORE", "FERRY_KAFKA"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "none.toml").touch()
    monkeypatch.setenv("FERRY_CONFIG", str(tmp_path / "none.toml"))
    path = tmp_path / "digits.toml"
    path.write_text(pipeline_text("digits"))
    return path


def test_the_pipeline_gives_what_flags_leave_out(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRY_KAFKA", "broker:1234")
    options = resolve_options(file)
    assert (options.name, options.kafka, options.parallelism) == ("digits-scoring", "broker:1234", 1)
    assert (options.checkpoint_seconds, options.guarantee, options.start) == (
        1.0,
        Guarantee.EXACTLY_ONCE,
        Start.COMMITTED,
    )


def test_flags_win(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRY_KAFKA", "broker:1234")
    options = resolve_options(
        file, kafka="other:1", store="file:///there", parallelism=2, checkpoint_seconds=9
    )
    assert (options.kafka, options.store, options.parallelism) == ("other:1", "file:///there", 2)
    assert options.checkpoint_seconds == 9


def test_a_store_of_no_known_form_is_found_before_anything_runs(file: Path) -> None:
    with pytest.raises(UsageError, match="ftp"):
        resolve_options(file, store="ftp://there")


def test_a_pipeline_without_scoring_names_what_to_add(file: Path) -> None:
    file.write_text(file.read_text().split("[scoring]")[0])
    with pytest.raises(UsageError, match=r"\[scoring\]"):
        resolve_options(file)


def test_checkpoints_must_fall_within_a_transaction(file: Path) -> None:
    with pytest.raises(UsageError, match="at most 300 s"):
        resolve_options(file, checkpoint_seconds=400)
    assert resolve_options(file, checkpoint_seconds=400, guarantee=Guarantee.AT_LEAST_ONCE)


@pytest.mark.parametrize("mode", ["process", "PROCESS"])
def test_processes_are_what_python_functions_run_in(mode: str) -> None:
    require_process_mode(mode)


def test_thread_mode_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match=r"pemja.*'process'"):
        require_process_mode("thread")


def test_the_command_needs_a_pipeline() -> None:
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    assert "--pipeline" in result.output


def test_help_shows_the_command_to_type() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert "flink run -d -pym ferryline.flink_scoring.job --pipeline" in result.output


@pytest.mark.parametrize(("policy", "shipped"), [(None, None), ("optional", None), ("required", "required")])
def test_required_signatures_travel_with_the_job(
    file: Path, monkeypatch: pytest.MonkeyPatch, policy: str | None, shipped: str | None
) -> None:
    if policy:
        monkeypatch.setenv("FERRY_SIGNATURES", policy)
    assert resolve_options(file).signatures == shipped
