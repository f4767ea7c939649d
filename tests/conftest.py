"""What all tests share: tiers by folder, no sockets in unit tests, and one local stack for a whole run."""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_socket

from ferryline.deploy.stack.local import Addresses, LocalStack
from ferryline.registry.stores import Store, open_store
from tests.support import sizes
from tests.support.ports import private_ports
from tests.support.report import Report
from tests.support.scheduling import FAULTS, FileScheduling
from tests.support.shared_stack import SharedStack, TestRun
from tests.support.tiers import Tier, tier_of
from tests.support.unit_tier import GateInProcess, NoProcesses

_RUN = pytest.StashKey[TestRun]()
_no_processes = NoProcesses()
_gate = GateInProcess()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ferry")
    group.addoption(
        "--tier",
        action="append",
        choices=list(Tier),
        help="Run this tier only; repeat it for more. [all but nightly, or what the paths name]",
    )
    group.addoption("--full-size", action="store_true", help="Run everything at its full size.")
    group.addoption("--report", type=Path, help="Write durations and skips into this JSON file.")


def pytest_configure(config: pytest.Config) -> None:
    # a shell starts background jobs with SIGINT ignored, and children inherit that; a handler they do not
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--full-size"):
        os.environ[sizes.VARIABLE] = "1"
    sizes.load_hypothesis_profile()
    if hasattr(config, "workerinput"):
        return
    if set(_tiers(config)) != {Tier.UNIT}:
        config.stash[_RUN] = TestRun()
    config.pluginmanager.register(Report(config.getoption("--report")), "ferry-report")


def pytest_unconfigure(config: pytest.Config) -> None:
    run = config.stash.get(_RUN, None)
    if run is None:
        return
    left = run.end()
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if left and reporter is not None:
        reporter.write_line(f"ended {len(left)} processes that tests left behind:", yellow=True)
        for line in left:
            reporter.write_line(f"  {line}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object | None:
    return FileScheduling(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    tier = tier_of(collection_path.relative_to(config.rootpath))
    return True if tier is not None and tier not in _tiers(config) else None


def _tiers(config: pytest.Config) -> list[Tier]:
    """The tiers of this run: those chosen, else those that the paths name, else all but nightly."""
    chosen = [Tier(name) for name in config.getoption("--tier") or []]
    named = [tier for argument in config.args if (tier := tier_of(Path(argument.partition("::")[0])))]
    return chosen or named or [tier for tier in Tier if tier is not Tier.NIGHTLY]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # fast tiers first; and what takes longest of a tier first, so that no worker ends long after the others
    order = list(Tier)
    items.sort(key=lambda item: (order.index(tier_of(item.path) or Tier.SYSTEM), _priority(item)))


def _priority(item: pytest.Item) -> int:
    if FAULTS in item.path.parts:
        return 0
    return 1 if item.get_closest_marker("early") else 2


def pytest_runtest_setup(item: pytest.Item) -> None:
    if tier_of(item.path) is Tier.UNIT:
        pytest_socket.disable_socket(allow_unix_socket=True)
    else:
        pytest_socket.enable_socket()
    _no_processes.forbidden = tier_of(item.path) is Tier.UNIT


@pytest.fixture(autouse=True)
def _unit_tier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if tier_of(request.path) is Tier.UNIT:
        # other tests keep it: what a local stack has downloaded lies there
        monkeypatch.delenv("FERRY_CACHE", raising=False)
        monkeypatch.setattr("ferryline.model_runtime.gate.gate.shared_keeper", lambda: _gate)
        # a file that outlives a power cut is nothing they see, and a slow disk takes most of their time
        monkeypatch.setattr("os.fsync", lambda _file: None)


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


# --- the stack of the run, which no test may hurt ---------------------------------------------------


@pytest.fixture(scope="session")
def shared_stack() -> SharedStack:
    return SharedStack()


@pytest.fixture(scope="session")
def minio(shared_stack: SharedStack) -> Iterator[Addresses]:
    """A running MinIO, its credentials in the environment."""
    with _signed_in(shared_stack.up(["minio"])) as addresses:
        yield addresses


@pytest.fixture(scope="session")
def kafka(shared_stack: SharedStack, minio: Addresses) -> Addresses:
    """A running Kafka beside MinIO."""
    return shared_stack.up(["kafka", "minio"])


@pytest.fixture(scope="session")
def stack(shared_stack: SharedStack, kafka: Addresses) -> LocalStack:
    """The whole stack: Kafka, MinIO and a Flink session cluster, for tests that leave all parts running."""
    shared_stack.up(["kafka", "minio", "flink"])
    return shared_stack.stack


@pytest.fixture
def minio_store_url(minio: Addresses) -> str:
    """A registry of its own on MinIO."""
    bucket, _, query = minio.store.partition("?")
    return f"{bucket}/test-{uuid.uuid4().hex}?{query}"


@pytest.fixture
def minio_store(minio_store_url: str) -> Store:
    return open_store(minio_store_url)


# --- a stack to kill parts of, for tests in folders `faults` ----------------------------------------


@pytest.fixture(scope="session")
def fault_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A whole stack of its own for tests that kill, freeze or restart parts; one worker runs them all."""
    stack = LocalStack(home=tmp_path_factory.mktemp("fault-stack"))
    try:
        with _signed_in(stack.up(ports=private_ports())):
            yield stack
    finally:
        stack.down(wipe=True)


@contextlib.contextmanager
def _signed_in(addresses: Addresses) -> Iterator[Addresses]:
    """The credentials of a stack's MinIO in the environment, while the block lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", addresses.access_key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", addresses.secret_key)
        yield addresses
