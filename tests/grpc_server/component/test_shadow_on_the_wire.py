"""A server with a shadow: what its callers get, and what is told of the two versions."""

from __future__ import annotations

import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson
import pytest

from ferryline.grpc_server.client import ModelNotFoundError
from ferryline.grpc_server.provenance import VERSION_KEY
from ferryline.model_runtime.facts import read_facts
from tests.grpc_server import model_files
from tests.grpc_server.held_runs import holding_runs
from tests.grpc_server.running_server import RunningServer
from tests.grpc_server.server_in_process import Site
from tests.grpc_server.shop import raw_request
from tests.support.waiting import DEADLINE, wait_for

ROW = np.array([[1, 2, 3, 4]], np.float32)
INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def put(site: Site, data: bytes, channel: str = "production") -> int:
    version = site.registry.publish("m", data, read_facts(data)).version
    site.registry.promote("m", version, channel=channel)
    return version


@contextmanager
def shadowed(site: Site, *models: str, shadow: str = "m:staging") -> Iterator[RunningServer]:
    """A server that is ready, and whose shadow has a version."""
    with site.server(*(models or ("m",)), flags=("--shadow", shadow)) as server:
        server.wait_until_healthy()
        wait_for(lambda: serves(server, "staging") is not None, "the shadow")
        yield server


def of_pair(server: RunningServer, name: str, versions: tuple[int, int] = (1, 2), **more: str) -> float:
    labels = {"model": "m", "version": versions[0], "shadow_version": versions[1], **more}
    text = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return server.metrics().get(f"ferry_shadow_{name}{{{text}}}", 0.0)


def readiness(server: RunningServer) -> dict[str, Any]:
    url = server.metrics_url.replace("/metrics", "/health/ready")
    with urllib.request.urlopen(url, timeout=DEADLINE) as reply:  # noqa: S310 - http on this machine
        document: dict[str, Any] = orjson.loads(reply.read())
    return document


def test_two_versions_are_compared_row_by_row_whatever_the_transport(site: Site) -> None:
    put(site, model_files.above(3))
    put(site, model_files.above(5), "staging")
    with shadowed(site) as server:
        for start in range(0, 100, 10):  # of 0 to 99 only 4 and 5 are judged otherwise
            rows = np.arange(start, start + 10, dtype=np.float32)
            np.testing.assert_array_equal(server.client.infer("m", {"x": rows})["label"], rows > 3)
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [3], "data": [4, 5, 6]}]}
        request = urllib.request.Request(
            f"http://{server.http_address}/v2/models/m/infer", orjson.dumps(body)
        )
        with urllib.request.urlopen(request, timeout=DEADLINE) as reply:  # noqa: S310 - http on this machine
            assert reply.headers[VERSION_KEY] == "1"
        wait_for(lambda: of_pair(server, "compared_total") == 11, "all to be compared")
        assert of_pair(server, "labels_total", output="label") == 103
        assert of_pair(server, "agreed_total", output="label") == 99
        assert of_pair(server, "difference_sum", output="score") == 22
        assert of_pair(server, "difference_bucket", output="score", le="1.0") == 0
        assert of_pair(server, "difference_bucket", output="score", le="10.0") == 11
        assert of_pair(server, "dropped_total") == 0
        found = readiness(server)["ferry_shadow"]["m:staging"]
        assert (found["version"], found["pairs"][0]["agreed"], found["last_error"]) == (2, 99, None)
    told = [(event["compared"], event["agreed"], event["largest_difference"])
            for event in server.events("shadow compared")]  # fmt: skip
    assert told == [(11, 99, 2.0)]


def test_a_shadow_answers_nobody_and_says_in_its_heartbeat_what_it_is(site: Site) -> None:
    put(site, model_files.plus(1))
    put(site, model_files.plus(2), "staging")
    with shadowed(site) as server:
        for version in ("staging", "2"):
            with pytest.raises(ModelNotFoundError):
                server.plus(version=version)
        assert (server.client.model("m").versions, list(readiness(server)["models"])) == (("1",), ["m"])
        wait_for(lambda: told(site) == {("grpc", "production", 1), ("shadow", "staging", 2)}, "heartbeats")
    assert told(site) == set()


def told(site: Site) -> set[tuple[str, str, int | None]]:
    """Roles, channels and versions that heartbeats tell of."""
    beats = site.registry.consumers.all()
    return {(beat.role, report.channel, report.version) for beat in beats for report in beat.models}


def test_a_channel_may_answer_by_its_name_and_be_a_shadow(site: Site) -> None:
    put(site, model_files.plus(1))
    put(site, model_files.plus(2), "staging")
    with shadowed(site, "m", "m:staging") as server:
        assert [server.plus(version=each) for each in ("", "staging", "2")] == [1, 2, 2]
        wait_for(lambda: of_pair(server, "compared_total") == 1, "it to be compared")
        wait_for(lambda: told(site) == {("grpc", "production", 1), ("grpc", "staging", 2)}, "the heartbeat")


def test_a_shadow_that_takes_long_delays_no_answer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    put(site, model_files.plus(1))
    put(site, model_files.held(2), "staging")
    monkeypatch.setenv("FERRY_SERVER_SHADOW_QUEUE_REQUESTS", "5")
    with holding_runs() as held, shadowed(site) as server:
        for _ in range(300):
            assert server.plus() == 1
        # one is run and five wait
        assert of_pair(server, "dropped_total") >= 300 - 6
        assert of_pair(server, "compared_total") == 0
        held.let_go()
        wait_for(lambda: of_pair(server, "compared_total") >= 5, "runs of the shadow")
        assert of_pair(server, "run_seconds_total") > 0


def test_a_stop_waits_for_no_shadow(site: Site) -> None:
    put(site, model_files.plus(1))
    put(site, model_files.held(2), "staging")
    with holding_runs(), shadowed(site) as server:
        for _ in range(10):
            assert server.plus() == 1
        server.ask_to_stop()
        assert server.wait() == 0, "it ends while a run is held"
        assert server.events("shadow compared") == []


def test_a_share_is_about_that_share(site: Site) -> None:
    put(site, model_files.plus(1))
    put(site, model_files.plus(2), "staging")
    with shadowed(site, shadow="m:staging=0.2") as server:
        for _ in range(500):
            server.plus()
        wait_for(lambda: readiness(server)["ferry_shadow"]["m:staging"]["waiting"] == 0, "the backlog")
        # ten standard deviations either way
        assert 20 < of_pair(server, "compared_total") < 190


def test_swaps_of_both_sides_under_load_leave_no_answer_uncounted(site: Site) -> None:
    numbers = {put(site, model_files.plus(1)): 1.0, put(site, model_files.plus(2), "staging"): 2.0}
    with shadowed(site) as server:
        with under_load(server) as answers:
            for channel, number in (("staging", 4), ("production", 8), ("staging", 16), ("production", 32)):
                version = put(site, model_files.plus(number), channel)
                numbers[version] = number
                wait_for(lambda: serves(server, channel) == version, "it to serve")  # noqa: B023 - waited for in this turn
                seen = sum(answers.values())
                wait_for(lambda: sum(answers.values()) > seen + 100, "answers")  # noqa: B023 - likewise
        wait_for(lambda: readiness(server)["ferry_shadow"]["m:staging"]["waiting"] == 0, "the backlog")
        wait_for(lambda: all_counted(server) == answers, "all answers to be compared")
        assert set(answers) == {1, 4, 6}
        found = server.metrics()
        for version, shadow in ((1, 2), (1, 3), (4, 3), (4, 5), (6, 5)):
            compared = of_pair(server, "compared_total", (version, shadow))
            difference = of_pair(server, "difference_sum", (version, shadow), output="y")
            assert compared > 0
            assert difference == pytest.approx(compared * abs(numbers[version] - numbers[shadow]))
        assert not any(name.startswith("ferry_shadow_failed") for name in found)


def serves(server: RunningServer, channel: str) -> float | None:
    name = "ferry_model_version" if channel == "production" else "ferry_shadow_version"
    return server.metrics().get(f'{name}{{channel="{channel}",model="m"}}')


def all_counted(server: RunningServer) -> Counter[int]:
    """Requests that were compared or dropped, by the version that answered them."""
    counted: Counter[int] = Counter()
    for name, value in server.metrics().items():
        if name.startswith(("ferry_shadow_compared_total", "ferry_shadow_dropped_total")):
            counted[int(name.rpartition('",version="')[2].rstrip('"}'))] += int(value)
    return counted


@contextmanager
def under_load(server: RunningServer) -> Iterator[Counter[int]]:
    """Plain requests on three connections until the block is left; counted by the version that answers."""
    answers: Counter[int] = Counter()
    ended, lock = threading.Event(), threading.Lock()
    data = raw_request("m", x=ROW).SerializeToString()

    def ask() -> None:
        with grpc.insecure_channel(server.address) as channel:
            infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
            while not ended.is_set():
                _, call = infer.with_call(data, timeout=DEADLINE)
                version = int(dict(call.trailing_metadata())[VERSION_KEY])
                with lock:
                    answers[version] += 1

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join(DEADLINE)


def test_the_check_shows_a_shadow_and_does_not_need_it(site: Site) -> None:
    put(site, model_files.plus(1))
    checked = site.run_to_its_end(flags=("--shadow", "m:staging=0.5", "--check-config"))
    assert checked.returncode == 0, checked.stderr
    (line,) = [line for line in checked.stdout.splitlines() if "staging" in line]
    assert line.split() == ["m", "staging", "-", "-", "-", "-", "shadow", "-"]


@pytest.mark.parametrize("shadow", ["m", "m:production", "other:staging", "m:staging=2"])
def test_a_shadow_that_makes_no_sense_ends_the_start(site: Site, shadow: str) -> None:
    put(site, model_files.plus(1))
    ended = site.run_to_its_end(flags=("--shadow", shadow))
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: shadow ")
    assert len(ended.stderr.splitlines()) == 1
