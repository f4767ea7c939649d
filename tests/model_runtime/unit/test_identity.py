"""What a process is called among all consumers."""

from __future__ import annotations

import os
import socket

import pytest

from ferryline.model_runtime.identity import consumer_name
from ferryline.registry.names import is_name


def named(monkeypatch: pytest.MonkeyPatch, *, host: str, pid: int, role: str = "grpc") -> str:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    monkeypatch.setattr(os, "getpid", lambda: pid)
    return consumer_name(role)


def test_a_process_has_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    first = named(monkeypatch, host="web1", pid=7001)
    assert named(monkeypatch, host="web1", pid=7001) == first
    assert first.startswith("grpc-web1-")


def test_pods_of_one_deployment_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    # a process remembers its instance id by process id, so what another pod makes is made here by forgetting
    from ferryline.model_runtime.identity import _instance_id

    deployment = "digits-scoring-of-the-handwritten-digits-5d9c7b8f4-"
    first = named(monkeypatch, host=f"{deployment}abcde", pid=1)
    _instance_id.cache_clear()
    assert named(monkeypatch, host=f"{deployment}fghij", pid=1) != first


def test_a_forked_process_is_another_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(monkeypatch, host="web1", pid=8001) != named(monkeypatch, host="web1", pid=8002)


@pytest.mark.parametrize("host", ["", "web1", "WEB_1.example.com", "x" * 200, "-" * 5])
@pytest.mark.parametrize("role", ["grpc", "consumer"])
def test_every_host_makes_a_name_that_the_registry_takes(
    monkeypatch: pytest.MonkeyPatch, host: str, role: str
) -> None:
    assert is_name(named(monkeypatch, host=host, pid=9001, role=role))
