"""`ferry-server` as the process that a user starts: signals, exit codes, and what it says on its streams."""

from __future__ import annotations

import http.client
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import orjson
import pytest

from ferryline.grpc_server.client import InferenceError
from ferryline.grpc_server.endpoint import SERVICE
from tests.grpc_server import model_files
from tests.grpc_server.running_server import ROW, added, plain_client
from tests.grpc_server.server_process import ServerProcess, Site
from tests.grpc_server.shop import raw_request
from tests.support.waiting import DEADLINE, wait_for

INFER = f"/{SERVICE}/ModelInfer"
PENDING = 'nv_inference_pending_request_count{model="slow",version="1"}'


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site"))
    made.publish(model_files.plus(5))
    made.publish(model_files.slow(), "slow")
    return made


@pytest.fixture(scope="module")
def other(site: Site) -> Iterator[ServerProcess]:
    """A server that stays."""
    with site.server() as server:
        server.wait_until_healthy()
        yield server


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_requests_under_way_end(site: Site, number: signal.Signals) -> None:
    with site.server("m", "slow", flags=["--drain-seconds", str(DEADLINE)]) as server:
        server.wait_until_healthy()
        assert status_over_http(server) == 200
        with ThreadPoolExecutor() as pool, plain_client(server.address) as client:
            calls = [pool.submit(client.infer, "slow", {"x": ROW}) for _ in range(6)]
            wait_for(lambda: any(call.done() for call in calls), "the first answer")
            server.process.send_signal(number)
            assert not all(call.done() for call in calls), "the model is too fast for this test"
            assert [added(call.result()) for call in calls] == [1] * len(calls)
        assert server.wait() == 0
        for event in ("draining", "drained", "stopped"):
            assert server.events(event) != []
        lines = server.log().splitlines()
        assert all(orjson.loads(line)["event"] for line in lines), "something else writes to standard error"


def status_over_http(server: ServerProcess) -> int:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    with closing(http.client.HTTPConnection(server.http_address, timeout=DEADLINE)) as connection:
        connection.request("POST", "/v2/models/m/infer", orjson.dumps({"inputs": [tensor]}))
        return connection.getresponse().status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_server_at_once(site: Site, number: signal.Signals) -> None:
    with site.server("m", "slow", flags=["--drain-seconds", "86400"]) as server:
        server.wait_until_healthy()
        call = server.channel.unary_unary(INFER)
        request = raw_request("slow", x=ROW).SerializeToString()
        slow = [call.future(request, timeout=DEADLINE) for _ in range(20)]
        wait_for(lambda: server.metrics().get(PENDING, 0) > 0, "requests to wait")
        server.process.send_signal(number)
        wait_for(lambda: bool(server.events("draining")), "the drain")
        assert server.health() == "NOT_SERVING"
        assert not server.has_ended(), "the first signal lets it drain"
        server.process.send_signal(number)
        assert server.wait() == {signal.SIGTERM: -signal.SIGTERM, signal.SIGINT: 130}[number]
        assert not server.events("drained"), "those who wait are not waited for"
        assert "Traceback" not in server.log()
        for each in slow:
            each.cancel()


def test_a_log_that_nobody_reads_any_more_keeps_nothing_from_happening(site: Site) -> None:
    site.publish(model_files.plus(1), "unheard")
    process = subprocess.Popen(site.command(["unheard"], []), stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.stderr.close()
        with plain_client(f"127.0.0.1:{orjson.loads(first)['port']}") as client:

            def answers() -> float | None:
                try:
                    return added(client.infer("unheard", {"x": ROW}))
                except InferenceError:
                    return None

            wait_for(lambda: answers() == 1, "the first version")
            site.publish(model_files.plus(2), "unheard")
            wait_for(lambda: answers() == 2, "the second version")
        process.terminate()
        assert process.wait(DEADLINE) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_two_servers_cannot_share_a_port_unnoticed(site: Site, other: ServerProcess) -> None:
    ended = site.run_to_its_end(flags=["--port", other.address.rpartition(":")[2]])
    assert (ended.returncode, ended.stderr.count("\n"), ended.stdout) == (2, 1, ""), ended.stderr
    assert ended.stderr.startswith(f"error: cannot listen on {other.address}: the port is in use")


def test_wrong_usage_is_one_clear_line(site: Site) -> None:
    ended = site.run_to_its_end(flags=["--store", "ftp://x"])
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
    assert ended.stderr.startswith("error: 'ftp://x' is no store")


@pytest.mark.parametrize(("model", "code"), [("m", 0), ("later", 3)])
def test_a_check_tells_scripts_what_it_found(site: Site, model: str, code: int) -> None:
    ended = site.run_to_its_end(model, flags=["--check-config"])
    assert ended.returncode == code
    assert model in ended.stdout
    assert ended.stderr.count("\n") == (1 if code else 0), ended.stderr
