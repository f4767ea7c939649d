"""The real server following several channels, and going back by several versions."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from grpc_server.client import ModelNotFoundError, RequestRefusedError
from model_runtime.facts import read_facts
from tests.grpc_server import model_files
from tests.grpc_server.server_process import ServerProcess, Site
from tests.grpc_server.shop import wait_for

pytestmark = pytest.mark.integration

BEYOND_TEN = np.array([15], np.int64)
LABELS = '{channel="production",model="m"}'


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def to_channel(site: Site, number: int, channel: str) -> int:
    """Publish what adds `number`, and promote it in a channel."""
    data = model_files.plus(number)
    version = site.registry.publish("m", data, read_facts(data)).version
    return site.registry.promote("m", version, channel=channel).generation


def test_one_server_follows_several_channels_of_a_model(site: Site) -> None:
    to_channel(site, 1, "production")
    to_channel(site, 2, "staging")
    with site.server("m", "m:staging") as server:
        server.wait_until_healthy()
        assert [server.plus(version=each) for each in ("", "production", "staging", "1", "2")] == [
            1,
            1,
            2,
            1,
            2,
        ]
        assert (server.health("m"), server.health("m:staging")) == ("SERVING", "SERVING")
        to_channel(site, 3, "staging")
        wait_for(lambda: server.plus(version="staging") == 3)
        assert (server.plus(), server.plus(version="2")) == (1, 2)
        listed = "warm here: 1 of channel production; 3, 2 of channel staging"
        with pytest.raises(ModelNotFoundError, match=listed):
            server.plus(version="blue")
        found = server.metrics()
        assert found['ferry_model_version{channel="staging",model="m"}'] == 3
        assert found[f"ferry_model_version{LABELS}"] == 1
        wait_for(lambda: told(site) == {("production", 1), ("staging", 2)}, "the heartbeat of both")


def wait_until_plus(server: ServerProcess, number: int) -> None:
    wait_for(lambda: server.plus() == number, f"the version that adds {number}")


def told(site: Site) -> set[tuple[str, int | None]]:
    """Channels and generations that heartbeats tell of."""
    beats = site.registry.consumers.all()
    return {(report.channel, report.generation) for beat in beats for report in beat.models}


def test_going_back_by_three_versions_needs_neither_the_files_nor_the_store(site: Site) -> None:
    for number in (1, 2):
        to_channel(site, number, "production")
    with site.server("m") as server:
        wait_for(lambda: server.health() == "SERVING" and server.plus() == 2)
        for number in (3, 4, 5):
            to_channel(site, number, "production")
            wait_until_plus(server, number)
        assert server.metrics()[f"ferry_warm_versions{LABELS}"] == 4
        # whatever a version could be loaded from again is gone or damaged
        shutil.rmtree(site.folder / "cache")
        for blob in (site.root / "blobs" / "sha256").iterdir():
            blob.write_bytes(bytes(blob.stat().st_size))
        site.registry.promote("m", 2)
        wait_for(lambda: server.plus() == 2)
        assert server.metric("ferry_last_swap_seconds") < 0.1
        assert server.metrics()[f"ferry_swaps_total{LABELS}"] == 5
        assert all_warm(server) == {2: 2.0, 3: 3.0, 4: 4.0, 5: 5.0}


def all_warm(server: ServerProcess) -> dict[int, float]:
    return {int(each): server.plus(version=each) for each in server.client.model("m").versions}


def test_the_budget_bounds_what_stays(site: Site) -> None:
    to_channel(site, 1, "production")
    with site.server("m") as server:
        server.wait_until_healthy()
        for number in range(2, 9):
            to_channel(site, number, "production")
            wait_until_plus(server, number)
        wait_for(lambda: server.metrics()[f"ferry_warm_versions{LABELS}"] == 5)
        assert 0 < server.metrics()[f"ferry_warm_bytes{LABELS}"] < 64 * 2**20


def test_every_model_of_the_registry_is_served_and_new_ones_as_they_come(site: Site) -> None:
    for number, name in enumerate(("a", "b"), start=1):
        site.publish(model_files.plus(number), name)
    with site.server(flags=("--all",)) as server:
        server.wait_until_healthy()
        assert [server.plus(name) for name in ("a", "b")] == [1, 2]
        site.publish(model_files.plus(3), "c")
        wait_for(lambda: server.client.ready("c"))
        assert (server.plus("c"), server.health()) == (3, "SERVING")
        # what is taken out of the registry stays served
        shutil.rmtree(site.root / "models" / "a")
        site.publish(model_files.plus(4), "b")
        wait_for(lambda: server.plus("b") == 4)
        assert server.plus("a") == 1


def test_a_version_that_fails_is_left_without_anyone_asking(site: Site) -> None:
    def promote(size: int) -> None:
        site.publish(model_files.lookup(size))

    def ask() -> bool:
        try:
            return float(server.client.infer("m", {"x": BEYOND_TEN})["y"][0]) == 1500
        except RequestRefusedError:
            return False

    promote(20)
    with site.server(flags=("--fall-back",)) as server:
        server.wait_until_healthy()
        assert all(ask() for _ in range(60))
        promote(10)
        wait_for(lambda: not ask(), "the bad version")
        wait_for(lambda: sum(ask() for _ in range(20)) == 20, "the fall-back")
        wait_for(lambda: told(site) == {("production", 1)})
        found = server.metrics()
        assert found['ferry_refusals_total{channel="production",gate="regression",model="m"}'] == 1
        assert found[f"ferry_generations_behind{LABELS}"] == 1
        promote(30)
        wait_for(lambda: told(site) == {("production", 3)}, "a newer version")
        assert ask()
