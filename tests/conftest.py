"""What all tests share: sockets are shut off in unit tests, and one local stack serves a whole session."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import pytest_socket

from deploy.stack.local import Addresses, LocalStack
from registry.stores import Store, open_store
from tests.stack_ports import private_ports

# a test that takes long on a busy machine has found nothing
hypothesis.settings.register_profile("any-pace", deadline=None)
hypothesis.settings.load_profile("any-pace")


def pytest_configure() -> None:
    # a shell starts background jobs with SIGINT ignored, and children inherit that; a handler they do not
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # unit tests first: they fail in seconds, and the stack need not be up for them
    items.sort(key=lambda item: item.get_closest_marker("integration") is not None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("integration"):
        pytest_socket.enable_socket()
    else:
        pytest_socket.disable_socket(allow_unix_socket=True)


@pytest.fixture(autouse=True)
def _no_cache_of_the_user(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    # integration tests keep it: what a local stack has downloaded lies there
    if not request.node.get_closest_marker("integration"):
        monkeypatch.delenv("FERRY_CACHE", raising=False)


@pytest.fixture(scope="session")
def _empty_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tmp_path_factory.mktemp("config") / "no-config.toml"
    config.touch()
    return config


@pytest.fixture(autouse=True)
def _private_folders(tmp_path: Path, _empty_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own configuration, registry or state."""
    monkeypatch.setenv("FERRY_CONFIG", str(_empty_config))
    monkeypatch.setenv("FERRY_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("FERRY_ACTOR", "tester")
    for name in ("FERRY_STORE", "FERRY_KAFKA"):
        if not os.environ.get(name, "").startswith("external:"):
            monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def local_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A local stack with nothing up yet: each fixture below starts the parts it needs."""
    stack = LocalStack(home=tmp_path_factory.mktemp("stack"))
    yield stack
    stack.down(wipe=True)


@pytest.fixture(scope="session")
def ports() -> dict[str, int]:
    """The ports of the stack: tests that run beside these have stacks of their own."""
    return private_ports()


@pytest.fixture(scope="session")
def minio(local_stack: LocalStack, ports: dict[str, int]) -> Iterator[Addresses]:
    """A running MinIO, its credentials in the environment."""
    addresses = local_stack.up(["minio"], ports=ports)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", addresses.access_key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", addresses.secret_key)
        yield addresses


@pytest.fixture(scope="session")
def kafka(local_stack: LocalStack, minio: Addresses, ports: dict[str, int]) -> Addresses:
    """A running Kafka beside MinIO."""
    return local_stack.up(["kafka", "minio"], ports=ports)


@pytest.fixture(scope="session")
def stack(local_stack: LocalStack, kafka: Addresses, ports: dict[str, int]) -> LocalStack:
    """The whole stack: Kafka, MinIO and a Flink session cluster."""
    local_stack.up(ports=ports)
    return local_stack


@pytest.fixture
def minio_store_url(minio: Addresses, request: pytest.FixtureRequest) -> str:
    """A registry of its own on MinIO."""
    bucket, _, query = minio.store.partition("?")
    return f"{bucket}/test-{abs(hash(request.node.nodeid)):x}-{os.getpid()}?{query}"


@pytest.fixture
def minio_store(minio_store_url: str) -> Store:
    return open_store(minio_store_url)
