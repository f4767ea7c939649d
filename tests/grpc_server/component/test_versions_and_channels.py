"""A server following several channels, and going back by several versions."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest
from tritonclient import grpc as triton

from ferryline.grpc_server.client import AsyncClient, Client, ModelNotFoundError, RequestRefusedError
from ferryline.model_runtime.facts import read_facts
from tests.grpc_server import model_files
from tests.grpc_server.running_server import ROW, RunningServer, added
from tests.grpc_server.server_in_process import Site
from tests.support.waiting import wait_for

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
        wait_for(lambda: server.plus(version="staging") == 3, "the new version of staging")
        assert (server.plus(), server.plus(version="2")) == (1, 2)
        listed = "warm here: 1 of channel production; 3, 2 of channel staging"
        with pytest.raises(ModelNotFoundError, match=listed):
            server.plus(version="blue")
        found = server.metrics()
        assert found['ferry_model_version{channel="staging",model="m"}'] == 3
        assert found[f"ferry_model_version{LABELS}"] == 1
        wait_for(lambda: told(site) == {("production", 1), ("staging", 2)}, "the heartbeat of both")


def wait_until_plus(server: RunningServer, number: int) -> None:
    wait_for(lambda: server.plus() == number, f"the version that adds {number}")


def version_of_staging(server: RunningServer) -> float | None:
    return server.metrics().get('ferry_model_version{channel="staging",model="m"}')


def told(site: Site) -> set[tuple[str, int | None]]:
    """Channels and generations that heartbeats tell of."""
    beats = site.registry.consumers.all()
    return {(report.channel, report.generation) for beat in beats for report in beat.models}


def test_going_back_by_three_versions_needs_neither_the_files_nor_the_store(site: Site) -> None:
    for number in (1, 2):
        to_channel(site, number, "production")
    with site.server("m") as server:
        wait_for(lambda: server.health() == "SERVING" and server.plus() == 2, "version 2")
        for number in (3, 4, 5):
            to_channel(site, number, "production")
            wait_until_plus(server, number)
        assert server.metrics()[f"ferry_warm_versions{LABELS}"] == 4
        # whatever a version could be loaded from again is gone or damaged
        shutil.rmtree(site.folder / "cache")
        for blob in (site.root / "blobs" / "sha256").iterdir():
            blob.write_bytes(bytes(blob.stat().st_size))
        site.registry.promote("m", 2)
        wait_until_plus(server, 2)
        assert server.metrics()[f"ferry_swaps_total{LABELS}"] == 5
        assert all_warm(server) == {2: 2.0, 3: 3.0, 4: 4.0, 5: 5.0}


def all_warm(server: RunningServer) -> dict[int, float]:
    return {int(each): server.plus(version=each) for each in server.client.model("m").versions}


def test_the_budget_bounds_what_stays(site: Site) -> None:
    to_channel(site, 1, "production")
    with site.server("m") as server:
        server.wait_until_healthy()
        for number in range(2, 9):
            to_channel(site, number, "production")
            wait_until_plus(server, number)
        wait_for(lambda: server.metrics()[f"ferry_warm_versions{LABELS}"] == 5, "the oldest to go")
        assert 0 < server.metrics()[f"ferry_warm_bytes{LABELS}"] < 64 * 2**20


def test_every_model_of_the_registry_is_served_and_new_ones_as_they_come(site: Site) -> None:
    for number, name in enumerate(("a", "b"), start=1):
        site.publish(model_files.plus(number), name)
    with site.server(flags=("--all",)) as server:
        server.wait_until_healthy()
        assert [server.plus(name) for name in ("a", "b")] == [1, 2]
        site.publish(model_files.plus(3), "c")
        wait_for(lambda: server.client.ready("c"), "the new model")
        assert (server.plus("c"), server.health()) == (3, "SERVING")
        # what is taken out of the registry stays served
        shutil.rmtree(site.root / "models" / "a")
        site.publish(model_files.plus(4), "b")
        wait_for(lambda: server.plus("b") == 4, "its new version")
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
        wait_for(lambda: told(site) == {("production", 1)}, "the heartbeat of the version before")
        refusals = 'ferry_refusals_total{channel="production",gate="regression",model="m"}'
        wait_for(lambda: server.metrics().get(refusals) == 1, "the refusal")
        wait_for(lambda: server.metric("ferry_generations_behind") == 1, "what it is behind")
        promote(30)
        wait_for(lambda: told(site) == {("production", 3)}, "a newer version")
        assert ask()


def test_our_clients_ask_a_channel_by_name_and_see_it_move(site: Site) -> None:
    to_channel(site, 1, "production")
    to_channel(site, 2, "staging")
    with site.server("m", "m:staging") as server, Client(server.address) as client:
        server.wait_until_healthy()
        client.wait_until_ready("m", "staging")
        assert client.ready("m", "staging")
        assert not client.ready("m", "blue")
        assert client.model("m", "staging").versions == ("1", "2")

        def of_staging() -> tuple[float, str, str | None]:
            answer = client.infer("m", ROW, version="staging")
            return added(answer), answer.model.version, answer.model.channel

        assert of_staging() == (2, "2", "staging")
        assert added(client.infer("m", ROW)) == 1
        with client.stream("m", version="staging") as stream:
            assert [added(answer) for answer in stream.answers([ROW, ROW])] == [2, 2]
            to_channel(site, 3, "staging")
            wait_for(lambda: of_staging() == (3, "3", "staging"), "the new version of staging")
            stream.send(ROW)
            assert added(stream.receive()) == 3, "a stream that is open follows the channel too"
        with pytest.raises(ModelNotFoundError, match="no channel that is followed of model 'm'"):
            client.infer("m", ROW, version="blue")
        assert asyncio.run(_asked_by_asyncio(server.address)) == 3


async def _asked_by_asyncio(address: str) -> float:
    async with AsyncClient(address) as client:
        return added(await client.infer("m", ROW, version="staging"))


def test_a_channel_may_take_another_contract_under_a_client_that_asks_it_by_name(site: Site) -> None:
    to_channel(site, 1, "production")
    to_channel(site, 2, "staging")
    with site.server("m", "m:staging") as server, Client(server.address) as client:
        server.wait_until_healthy()
        assert client.infer("m", ROW, version="staging")["y"].shape == (1, 4)
        wider = model_files.plus(3, features=5)
        version = site.registry.publish("m", wider, read_facts(wider)).version
        site.registry.promote("m", version, channel="staging", allow_contract_change=True)
        wait_for(lambda: version_of_staging(server) == 3, "the wider version")
        five = np.zeros((1, 5), np.float32)
        assert client.infer("m", five, version="staging")["y"].tolist() == [[3] * 5]
        assert client.infer("m", ROW)["y"].tolist() == [[2, 3, 4, 5]], "the other channel takes what it took"


def test_batching_may_be_set_for_any_model_of_a_whole_registry(site: Site) -> None:
    for name in ("a", "b"):
        site.publish(model_files.plus(1), name)
    with site.server(flags=("--all", "--batch", "a=32:500us", "--batch", "later=8:1ms")) as server:
        server.wait_until_healthy()
        site.publish(model_files.plus(2), "later")
        wait_for(lambda: server.client.ready("later"), "the new model")
        with triton.InferenceServerClient(server.address) as client:
            found = {name: client.get_model_config(name).config for name in ("a", "b", "later")}
    assert {name: config.HasField("dynamic_batching") for name, config in found.items()} == {
        "a": True,
        "b": False,
        "later": True,
    }
    batching = {name: found[name].dynamic_batching for name in ("a", "later")}
    assert [list(each.preferred_batch_size) for each in batching.values()] == [[32], [8]]
    assert [each.max_queue_delay_microseconds for each in batching.values()] == [500, 1000]


def test_one_budget_of_memory_for_all_channels(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERRY_SERVER_WARM_MIB", "1")  # four of these models take a MiB and a little
    to_channel(site, 1, "production")
    with site.server("m", "m:staging", flags=("--optional", "m:staging")) as server:
        server.wait_until_healthy()
        for number in (2, 3):
            to_channel(site, number, "production")
            wait_until_plus(server, number)
        assert set(all_warm(server)) == {1, 2, 3}
        site.registry.promote("m", 3, channel="staging")
        wait_for(lambda: version_of_staging(server) == 3, "the same version in staging")
        assert set(all_warm(server)) == {1, 2, 3}, "a version in two channels takes room once"
        to_channel(site, 4, "staging")
        wait_for(lambda: version_of_staging(server) == 4, "another version in staging")
        assert all_warm(server) == {2: 2.0, 3: 3.0, 4: 4.0}
        with pytest.raises(
            ModelNotFoundError, match="no warm version 1; warm here: 3, 2 of channel production"
        ):
            server.plus(version="1")
        assert server.metrics()[f"ferry_warm_versions{LABELS}"] == 2
