"""Several workers behind one port: one decision, no request lost, and processes that die."""

from __future__ import annotations

import http.client
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Self

import grpc
import numpy as np
import orjson
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ferryline.grpc_server.endpoint import SERVICE
from ferryline.model_runtime.facts import read_facts
from ferryline.protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.server_process import START_SECONDS, ServerProcess, Site
from tests.grpc_server.shop import float_output, raw_request
from tests.support.waiting import wait_for

WORKERS = 2
FLAGS = ["--workers", str(WORKERS)]
ROW = np.array([[1, 2, 3, 4]], np.float32)
# else all channels of this process share one connection, and so one worker
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site"))
    made.publish(model_files.plus(1))
    return made


@dataclass(frozen=True, slots=True)
class Reply:
    sent: float
    received: float
    version: int
    added: float


class Callers:
    """Calls over many connections without a pause, until the end or until `turn_away` is set."""

    def __init__(self, server: ServerProcess, connections: int = 12) -> None:
        self.replies: list[Reply] = []
        self.failures: list[grpc.StatusCode] = []
        self.turn_away = threading.Event()
        self._address = server.address
        self._threads = [threading.Thread(target=self._call) for _ in range(connections)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.turn_away.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        request = raw_request("m", x=ROW).SerializeToString()
        with grpc.insecure_channel(self._address, OWN_CONNECTION) as channel:
            infer = channel.unary_unary(
                f"/{SERVICE}/ModelInfer", response_deserializer=pb.ModelInferResponse.FromString
            )
            while not self.turn_away.is_set():
                began = time.monotonic()
                try:
                    # a lost connection is made anew at once, or after the client's own pause
                    reply = infer(request, timeout=10, wait_for_ready=True)
                except grpc.RpcError as error:
                    self.failures.append(error.code())
                    continue
                added = float(float_output(reply)[0, 0] - ROW[0, 0])
                self.replies.append(Reply(began, time.monotonic(), int(reply.model_version), added))


def workers_of(server: ServerProcess) -> list[psutil.Process]:
    children = psutil.Process(server.process.pid).children()
    return [child for child in children if "ferryline.grpc_server.workers.worker" in child.cmdline()]


def on_each_worker(server: ServerProcess, look: Callable[[grpc.Channel], object]) -> list[object]:
    """What `look` finds over thirty connections, which reach both workers as good as always."""
    found = []
    for _ in range(30):
        with grpc.insecure_channel(server.address, OWN_CONNECTION) as channel:
            found.append(look(channel))
    return found


def added_by(channel: grpc.Channel, version: str = "") -> float | grpc.StatusCode:
    infer = channel.unary_unary(
        f"/{SERVICE}/ModelInfer", response_deserializer=pb.ModelInferResponse.FromString
    )
    try:
        reply = infer(raw_request("m", version=version, x=ROW).SerializeToString(), timeout=10)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return float(float_output(reply)[0, 0] - ROW[0, 0])


def answered(server: ServerProcess) -> float:
    return sum(
        value for name, value in server.metrics().items() if name.startswith("nv_inference_request_success{")
    )


def late_replies(replies: list[Reply], version: int) -> list[float]:
    """By how many seconds answers of older versions were asked for after the first of `version` was there."""
    first = min(reply.received for reply in replies if reply.version >= version)
    return [reply.sent - first for reply in replies if reply.version < version and reply.sent > first]


def test_all_workers_turn_to_a_version_at_once_and_fail_no_request(site: Site) -> None:
    with site.server(flags=["--workers", "3"]) as server:
        server.wait_until_healthy()
        with Callers(server) as callers:
            for number in range(2, 22):
                site.publish(model_files.plus(number))
                wait_for(lambda number=number: server.metric("ferry_model_version") == number, f"{number}")
                asked = len(callers.replies)
                wait_for(lambda asked=asked: len(callers.replies) > asked + 50, "answers by it")
        assert callers.failures == []
        wrong = [reply for reply in callers.replies if reply.added != reply.version]
        assert wrong == [], "a reply named another version than the one that gave it"
        late = [max(late_replies(callers.replies, number), default=0.0) for number in range(2, 22)]
        # by the clock of callers that share two cores with all of it
        assert sum(seconds > 0.05 for seconds in late) <= 1, late
        assert max(late) < 0.5, late
        assert server.metric("ferry_swaps_total") == 21
        assert server.metrics()["ferry_workers"] == 3
        for number in range(12, 22):  # older ones are not told of any more
            success = server.metrics()[f'nv_inference_request_success{{model="m",version="{number}"}}']
            assert success == sum(reply.version == number for reply in callers.replies)
        shares = [worker.cpu_times().user for worker in workers_of(server)]
        assert min(shares) > 0.05 * sum(shares), "every worker has its share"


def test_a_killed_worker_is_replaced_and_costs_nothing_but_what_was_under_way(site: Site) -> None:
    with site.server(flags=FLAGS) as server:
        server.wait_until_healthy()
        site.publish(model_files.plus(2))
        wait_for(lambda: server.plus() == 2, "version 2")
        with Callers(server) as callers:
            wait_for(lambda: len(callers.replies) > 300, "load")
            seen = answered(server)
            victim = workers_of(server)[0]
            victim.kill()
            wait_for(lambda: server.metrics()["ferry_worker_restarts_total"] == 1, "the replacement")
            assert answered(server) >= seen, "no counter goes back"
            wait_for(lambda: server.metrics()["ferry_workers"] == WORKERS, "all workers")
            assert answered(server) >= seen
        assert len(callers.failures) <= 12, "only what was under way at one of two workers"
        assert set(callers.failures) <= {grpc.StatusCode.UNAVAILABLE}
        assert victim.pid not in [worker.pid for worker in workers_of(server)]
        # the new one has all that the others have
        assert set(on_each_worker(server, added_by)) == {2}
        assert set(on_each_worker(server, lambda channel: added_by(channel, "1"))) == {1}
        assert server.events("a worker is gone and is replaced")[0]["reason"] == "ended by SIGKILL"
        site.publish(model_files.plus(3))
        wait_for(lambda: set(on_each_worker(server, added_by)) == {3}, "version 3")


def test_workers_of_a_dead_supervisor_answer_what_is_under_way_and_end(site: Site) -> None:
    site.publish(model_files.slow(turns=200, size=700), "slow")
    with site.server("slow", flags=[*FLAGS, "--drain-seconds", "20"]) as server:
        server.wait_until_healthy()
        workers = workers_of(server)
        call = server.channel.unary_unary(
            f"/{SERVICE}/ModelInfer", response_deserializer=pb.ModelInferResponse.FromString
        )
        slow = call.future(raw_request("slow", x=ROW).SerializeToString(), timeout=60)
        wait_for(lambda: sum(worker.cpu_percent() > 0 for worker in workers) > 0, "the run")
        server.process.kill()
        assert float_output(slow.result())[0, 0] == 2
        _, alive = psutil.wait_procs(workers, timeout=30)
        assert alive == []


def test_a_stop_fails_no_request_of_callers_that_turn_away(site: Site) -> None:
    with site.server(flags=FLAGS) as server:
        server.wait_until_healthy()
        watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        with Callers(server) as callers:
            wait_for(lambda: len(callers.replies) > 300, "load")
            server.process.send_signal(signal.SIGTERM)
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            callers.turn_away.set()
        assert callers.failures == []
        assert server.process.wait(30) == 0
        assert server.events("stopped") != []
        assert len(server.events("drained")) == WORKERS + 1
    assert not list(site.registry.consumers.all()), "the heartbeat leaves with the server"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_all_of_them_at_once(site: Site, number: signal.Signals) -> None:
    site.publish(model_files.slow(turns=200, size=700), "slow")
    with site.server("slow", flags=[*FLAGS, "--drain-seconds", "60"]) as server:
        server.wait_until_healthy()
        workers = workers_of(server)
        call = server.channel.unary_unary(f"/{SERVICE}/ModelInfer")
        slow = [call.future(raw_request("slow", x=ROW).SerializeToString(), timeout=60) for _ in range(30)]
        waiting = 'nv_inference_pending_request_count{model="slow",version="1"}'
        wait_for(lambda: server.metrics().get(waiting, 0) > 0, "requests to wait")
        server.process.send_signal(number)
        wait_for(lambda: len(server.events("draining")) == WORKERS + 1, "the drain")
        server.process.send_signal(number)
        expected = {signal.SIGTERM: -signal.SIGTERM, signal.SIGINT: 130}[number]
        assert server.process.wait(10) == expected
        _, alive = psutil.wait_procs(workers, timeout=5)
        assert alive == []
        assert "Traceback" not in server.log()
        for each in slow:
            each.cancel()


def test_a_bad_model_is_refused_by_all_and_the_last_good_one_goes_on(site: Site) -> None:
    with site.server(flags=FLAGS) as server:
        server.wait_until_healthy()
        with Callers(server) as callers:
            site.publish(model_files.plus(2, features=5), facts_of=model_files.plus(2))
            refusals = 'ferry_refusals_total{channel="production",gate="contract",model="m"}'
            wait_for(lambda: server.metrics().get(refusals) == 1, "the refusal")
        assert callers.failures == []
        assert {reply.version for reply in callers.replies} == {1}
        beats = list(site.registry.consumers.all())
        assert [beat.pid for beat in beats] == [server.process.pid], "one consumer, whatever the workers"
        assert beats[0].models[0].refused_gate == "contract"
        site.publish(model_files.plus(3))
        wait_for(lambda: set(on_each_worker(server, added_by)) == {3}, "the next one")


def test_health_and_readiness_say_the_same_everywhere(site: Site) -> None:
    def health(channel: grpc.Channel) -> Any:
        stub = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service="later"), timeout=5).status

    with site.server("m", "later", flags=FLAGS) as server:
        assert set(on_each_worker(server, health)) == {health_pb2.HealthCheckResponse.NOT_SERVING}
        assert page(server)[0] == 503
        site.publish(model_files.plus(1), "later")
        serving = {health_pb2.HealthCheckResponse.SERVING}
        wait_for(lambda: set(on_each_worker(server, health)) == serving, "health of all")
        status, found = page(server)
        assert (status, found["workers"]) == (200, {"wanted": WORKERS, "listening": WORKERS})
        assert found["models"]["later"]["version"] == 1
        inside = page(server, "/v2/health/ready", server.http_address)[1]["models"]["later"]
        assert (inside["version"], inside["phase"], inside["warm"]) == (1, "serving", [1])


def page(server: ServerProcess, path: str = "/health/ready", address: str = "") -> tuple[int, Any]:
    with closing(http.client.HTTPConnection(address or server.metrics_url.split("/")[2], timeout=5)) as web:
        web.request("GET", path)
        reply = web.getresponse()
        return reply.status, orjson.loads(reply.read())


def test_statistics_are_those_of_all_workers(site: Site) -> None:
    def count(channel: grpc.Channel) -> int:
        ask = channel.unary_unary(
            f"/{SERVICE}/ModelStatistics", response_deserializer=pb.ModelStatisticsResponse.FromString
        )
        stats = ask(pb.ModelStatisticsRequest(name="m").SerializeToString(), timeout=10).model_stats
        return int(stats[0].inference_count)

    with site.server(flags=FLAGS) as server:
        server.wait_until_healthy()
        assert set(on_each_worker(server, added_by)) == {1}
        assert set(on_each_worker(server, count)) == {30}


def test_models_that_callers_load_and_unload_come_and_go_everywhere(site: Site) -> None:
    def ask(rpc: str, name: str) -> Callable[[grpc.Channel], object]:
        def look(channel: grpc.Channel) -> object:
            request = pb.RepositoryModelLoadRequest(model_name=name)
            try:
                channel.unary_unary(f"/{SERVICE}/{rpc}")(request.SerializeToString(), timeout=30)
            except grpc.RpcError as error:
                return error.code()
            return None

        return look

    with site.server("m", flags=[*FLAGS, "--model-control", "explicit"]) as server:
        server.wait_until_healthy()
        site.publish(model_files.plus(5), "other")
        with grpc.insecure_channel(server.address) as channel:
            assert ask("RepositoryModelLoad", "missing")(channel) == grpc.StatusCode.INVALID_ARGUMENT
            assert ask("RepositoryModelLoad", "other")(channel) is None
            assert set(on_each_worker(server, lambda each: plus_of(each, "other"))) == {5}
            assert ask("RepositoryModelUnload", "other")(channel) is None
            gone = {grpc.StatusCode.NOT_FOUND}
            wait_for(
                lambda: set(on_each_worker(server, lambda each: plus_of(each, "other"))) == gone, "it to go"
            )
            assert ask("RepositoryModelUnload", "other")(channel) == grpc.StatusCode.NOT_FOUND


def plus_of(channel: grpc.Channel, model: str) -> float | grpc.StatusCode:
    infer = channel.unary_unary(
        f"/{SERVICE}/ModelInfer", response_deserializer=pb.ModelInferResponse.FromString
    )
    try:
        reply = infer(raw_request(model, x=ROW).SerializeToString(), timeout=10)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return float(float_output(reply)[0, 0] - ROW[0, 0])


def test_a_regression_is_judged_by_the_counts_of_all_workers(site: Site) -> None:
    flags = [*FLAGS, "--fall-back"]
    with site.server(flags=flags) as server:
        server.wait_until_healthy()
        with Callers(server) as callers:
            wait_for(lambda: len(callers.replies) > 500, "something to hold it against")
            site.publish(model_files.slow(turns=3, size=300))
            refusals = 'ferry_refusals_total{channel="production",gate="regression",model="m"}'
            wait_for(lambda: server.metrics().get(refusals) == 1, "the fall-back")
            wait_for(lambda: set(on_each_worker(server, added_by)) == {1}, "version 1 everywhere")
        assert callers.failures == []


def test_a_canary_gets_its_share_whichever_worker_answers(site: Site) -> None:
    def chosen(channel: grpc.Channel) -> tuple[str, ...]:
        infer = channel.unary_unary(
            f"/{SERVICE}/ModelInfer", response_deserializer=pb.ModelInferResponse.FromString
        )
        versions = []
        for key in range(40):
            request = raw_request("m", x=ROW)
            request.id = str(key)
            versions.append(infer(request.SerializeToString(), timeout=10).model_version)
        return tuple(versions)

    with site.server(flags=FLAGS) as server:
        server.wait_until_healthy()
        data = model_files.plus(2)
        version = site.registry.publish("m", data, read_facts(data)).version
        site.registry.promote("m", version, canary=50)
        wait_for(lambda: server.metric("ferry_canary_percent") == 50, "the canary")
        found = set(on_each_worker(server, chosen))
        assert len(found) == 1, "the same id gets the same version everywhere"
        assert set(found.pop()) == {"1", "2"}  # type: ignore[arg-type]


def test_a_shadow_runs_again_what_any_worker_answered(site: Site) -> None:
    data = model_files.plus(2)
    version = site.registry.publish("m", data, read_facts(data)).version
    site.registry.promote("m", version, channel="staging")
    with site.server(flags=[*FLAGS, "--shadow", "m:staging"]) as server:
        server.wait_until_healthy()
        shadow = 'ferry_shadow_version{channel="staging",model="m"}'
        wait_for(lambda: server.metrics().get(shadow) == 2, "the shadow")
        assert set(on_each_worker(server, added_by)) == {1}
        compared = 'ferry_shadow_compared_total{model="m",shadow_version="2",version="1"}'
        wait_for(lambda: server.metrics().get(compared) == 30, "all comparisons")


def test_workers_that_die_again_and_again_end_the_server_with_one_clear_line(site: Site) -> None:
    with site.server(flags=["--workers", "2"]) as server:
        server.wait_until_healthy()
        deadline = time.monotonic() + START_SECONDS
        while server.process.poll() is None and time.monotonic() < deadline:
            for worker in workers_of_ended(server):
                worker.kill()
            time.sleep(0.05)
        assert server.process.wait(30) == 1
        last = server.log().strip().splitlines()[-1]
        assert last.startswith("error: workers died 5 times within 60 s, the last one ended by SIGKILL"), last
        assert "Traceback" not in server.log()


def workers_of_ended(server: ServerProcess) -> list[psutil.Process]:
    try:
        return workers_of(server)
    except psutil.Error:  # it, or one of them, ended meanwhile
        return []


def test_a_port_in_use_is_told_at_once_and_not_shared_with_strangers(site: Site) -> None:
    with site.server(flags=FLAGS) as server:
        port = server.address.rpartition(":")[2]
        ended = run_with(site, [*FLAGS, "--port", port])
        assert ended.returncode == 2
        assert ended.stderr.strip().splitlines()[-1].startswith(f"error: cannot listen on 127.0.0.1:{port}: ")
        assert run_with(site, ["--port", port]).returncode == 2, "nor with a server of one process"


def run_with(site: Site, flags: list[str]) -> subprocess.CompletedProcess[str]:
    return site.run_to_its_end(flags=flags)
