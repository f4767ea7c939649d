"""What all tests share: sockets are shut off in unit tests, and one local stack serves a whole session."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_socket

from deploy.stack.local import Addresses, LocalStack
from registry.stores import Store, open_store


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
def minio(local_stack: LocalStack) -> Iterator[Addresses]:
    """A running MinIO, its credentials in the environment."""
    addresses = local_stack.up(["minio"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", addresses.access_key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", addresses.secret_key)
        yield addresses


@pytest.fixture(scope="session")
def kafka(local_stack: LocalStack, minio: Addresses) -> Addresses:
    """A running Kafka beside MinIO."""
    return local_stack.up(["kafka", "minio"])


@pytest.fixture(scope="session")
def stack(local_stack: LocalStack, kafka: Addresses) -> LocalStack:
    """The whole stack: Kafka, MinIO and a Flink session cluster."""
    local_stack.up()
    return local_stack


@pytest.fixture
def minio_store_url(minio: Addresses, request: pytest.FixtureRequest) -> str:
    """A registry of its own on MinIO."""
    bucket, _, query = minio.store.partition("?")
    return f"{bucket}/test-{abs(hash(request.node.nodeid)):x}-{os.getpid()}?{query}"


@pytest.fixture
def minio_store(minio_store_url: str) -> Store:
    return open_store(minio_store_url)
