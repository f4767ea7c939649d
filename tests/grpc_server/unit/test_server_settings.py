"""Flags before variables before the config file, and clear words for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from ferryline.grpc_server.execution.policy import BatchPolicy, QueueLimits
from ferryline.grpc_server.settings import load_server_settings
from ferryline.registry.errors import UsageError


def test_flags_win_over_variables_and_variables_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.toml"
    file.write_text('server_port = 1\nserver_metrics_port = 2\nserver_host = "file"\n')
    monkeypatch.setenv("FERRY_CONFIG", str(file))
    monkeypatch.setenv("FERRY_SERVER_PORT", "11")
    monkeypatch.setenv("FERRY_SERVER_METRICS_PORT", "12")
    found = load_server_settings(server_port=21, server_metrics_port=None)
    assert (found.server_port, found.server_metrics_port, found.server_host) == (21, 12, "file")


def test_models_stand_behind_each_other_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRY_SERVER_MODELS", "digits, phishing:staging")
    references = load_server_settings(server_models=()).references()
    assert [(r.model, r.channel_or_default) for r in references] == [
        ("digits", "production"),
        ("phishing", "staging"),
    ]


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ((), "no model to serve: name one with --model"),
        (("digits@3",), "names a version, and a server follows a channel: use digits or digits:CHANNEL"),
        (("digits", "digits:production"), "digits:production is named twice"),
        (("digits", "digits:7"), "digits mean a version in requests"),
        (("Digits!",), "cannot name a model"),
    ],
)
def test_wrong_models_are_refused(models: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_server_settings(server_models=models).references()


def test_how_requests_run_is_read_from_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRY_SERVER_BATCHING", "digits=32:500us, phishing=8")
    monkeypatch.setenv("FERRY_SERVER_QUEUE_REQUESTS", "7")
    found = load_server_settings(server_models=("digits", "phishing"), server_inline_us=20).execution()
    assert found.batching == {"digits": BatchPolicy(32, 500), "phishing": BatchPolicy(8, 0)}
    assert (found.inline_ns, found.limits) == (20_000, QueueLimits(requests=7))


def test_batching_of_a_model_that_is_not_served_is_a_mistake() -> None:
    settings = load_server_settings(server_models=("digits",), server_batching=("digit=32",))
    with pytest.raises(
        UsageError, match="batching is set for model digit, which is not among those to serve"
    ):
        settings.execution()


@pytest.mark.parametrize(("name", "value"), [("server_port", 70000), ("server_poll_seconds", 0)])
def test_a_value_out_of_range_is_named(name: str, value: int) -> None:
    with pytest.raises(UsageError, match=name):
        load_server_settings(**{name: value})
