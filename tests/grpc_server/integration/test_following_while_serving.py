"""The real server while its models change, and while the store misbehaves."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import grpc
import pytest

from grpc_server.client import InferenceError
from model_runtime.facts import read_facts
from registry import keys
from registry.documents import Heartbeat, ServedModelReport
from tests.grpc_server import model_files
from tests.grpc_server.server_process import ROW, START_SECONDS, ServerProcess, Site, added, plain_client
from tests.grpc_server.shop import wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


class Caller:
    """Calls without a pause from several threads, and keeps what came of it."""

    THREADS = 3

    def __init__(self, server: ServerProcess) -> None:
        self.answers: list[tuple[str, int | None, float]] = []
        self.failures: list[str] = []
        self._stopping = threading.Event()
        self._address = server.address
        self._threads = [threading.Thread(target=self._call) for _ in range(self.THREADS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        with plain_client(self._address) as client:
            while not self._stopping.is_set():
                try:
                    answer = client.infer("m", {"x": ROW})
                    self.answers.append((answer.model.version, answer.model.generation, added(answer)))
                except (InferenceError, AssertionError) as error:
                    self.failures.append(str(error))


def beat(site: Site) -> Heartbeat | None:
    return next(iter(site.registry.consumers.all()), None)


def served(site: Site) -> ServedModelReport | None:
    heartbeat = beat(site)
    return heartbeat.models[0] if heartbeat else None


def serves(server: ServerProcess, number: float) -> None:
    wait_for(lambda: server.plus() == number, f"version that adds {number}", 20)


def test_swaps_and_rollbacks_under_load_fail_no_request_and_mix_no_versions(site: Site) -> None:
    site.publish(model_files.plus(1))
    with site.server() as server:
        server.wait_until_healthy()
        with Caller(server) as caller:
            for number in range(2, 12):
                site.publish(model_files.plus(number))
                serves(server, number)
            site.registry.rollback("m")
            serves(server, 10)
            site.registry.rollback("m", to=3)
            serves(server, 3)
        assert caller.failures == []
        assert len(caller.answers) > 100
        wrong = [answer for answer in caller.answers if float(answer[0]) != answer[2]]
        assert wrong == [], "a reply named another version than the one that gave it"
        generations = {(generation, version) for version, generation, _ in caller.answers}
        assert generations <= {(g, str(g)) for g in range(1, 12)} | {(12, "10"), (13, "3")}
        assert {(11, "11"), (12, "10"), (13, "3")} <= generations
        # the version before stays warm: a caller may still name it
        assert (server.plus(version="10"), server.plus(version="3")) == (10, 3)
        assert server.metric("ferry_model_generation") == 13
        assert server.metric("ferry_swaps_total") == 13


def test_promote_to_first_answer_takes_a_second_and_a_half_at_most(site: Site) -> None:
    site.publish(model_files.plus(1))
    with site.server(flags=["--poll-seconds", "1"]) as server:
        server.wait_until_healthy()
        site.publish(model_files.plus(2))
        promoted = time.monotonic()
        serves(server, 2)
        assert time.monotonic() - promoted < 1.5


def test_a_model_published_after_the_start_is_taken_up(site: Site) -> None:
    with site.server() as server:
        assert server.health() == "NOT_SERVING"
        with pytest.raises(InferenceError, match=r"UNAVAILABLE: .* nothing is promoted there yet"):
            server.plus()
        site.publish(model_files.plus(7))
        server.wait_until_healthy()
        assert server.plus() == 7


def refused(site: Site, server: ServerProcess, gate: str, generation: int) -> ServedModelReport:
    """Wait until a refusal shows in the heartbeat and in the metrics."""

    def shown() -> bool:
        report = served(site)
        return report is not None and report.refused_gate == gate

    wait_for(shown, f"refusal by {gate}", 20)
    name = f'ferry_refusals_total{{channel="production",gate="{gate}",model="m"}}'
    assert server.metrics()[name] == 1
    report = served(site)
    assert report is not None
    assert report.refused_generation == generation
    return report


def test_a_corrupt_blob_is_refused_and_the_last_good_version_goes_on(site: Site) -> None:
    site.publish(model_files.plus(1))
    with site.server() as server:
        server.wait_until_healthy()
        with Caller(server) as caller:
            data = model_files.plus(2)
            version = site.registry.publish("m", data, read_facts(data)).version
            blob = site.root / keys.blob(site.registry.versions("m").get(version).blob.digest)
            blob.write_bytes(data[:-1] + b"\0")
            site.registry.promote("m", version)
            report = refused(site, server, "digest", 2)
        assert (report.version, report.phase) == (1, "serving")
        assert caller.failures == []
        assert (server.health(), server.plus()) == ("SERVING", 1)
        site.publish(model_files.plus(3))
        serves(server, 3)


def test_a_manifest_of_a_newer_schema_is_refused_by_name(site: Site) -> None:
    site.publish(model_files.plus(1))
    with site.server() as server:
        server.wait_until_healthy()
        server.process.send_signal(signal.SIGSTOP)  # or it reads the manifest before it is altered
        site.publish(model_files.plus(2))
        manifest = site.root / "models/m/versions/0000000002.json"
        manifest.write_bytes(
            manifest.read_bytes().replace(b'"schema_version":"1.0"', b'"schema_version":"2.0"')
        )
        server.process.send_signal(signal.SIGCONT)
        report = refused(site, server, "schema", 2)
        assert "schema version 2.0" in (report.last_error or "")
        assert server.plus() == 1


def test_a_model_whose_input_shape_changed_is_refused(site: Site) -> None:
    site.publish(model_files.plus(1))
    with site.server() as server:
        server.wait_until_healthy()
        # the catalogue refuses an honest one at promotion; a manifest that hides the change comes this far
        site.publish(model_files.plus(2, features=5), facts_of=model_files.plus(2))
        report = refused(site, server, "contract", 2)
        assert "[-1, 4]" in (report.last_error or "")
        assert "[-1, 5]" in (report.last_error or "")
        assert server.plus() == 1


def test_a_store_that_goes_away_changes_nothing_for_callers(site: Site) -> None:
    site.publish(model_files.plus(1))
    away = site.folder / "away"
    with site.server() as server:
        server.wait_until_healthy()
        with Caller(server) as caller:
            # a file where the folder was: every access fails, as on a lost mount
            _take_away(site.root, away)
            wait_for(lambda: server.metric("ferry_follower_failing_seconds") > 0.5, "failing", 20)
            assert server.metric("ferry_follower_failures_total") >= 1
            assert (server.health(), server.plus()) == ("SERVING", 1)
            site.root.unlink()
            away.rename(site.root)
            wait_for(lambda: server.metric("ferry_follower_failing_seconds") == 0, "recovery", 40)
            site.publish(model_files.plus(2))
            serves(server, 2)
        assert caller.failures == []


def _take_away(root: Path, away: Path) -> None:
    root.rename(away)
    while True:
        try:
            root.touch(exist_ok=False)
        except FileExistsError:  # a heartbeat made the folder anew in between
            root.rename(away.with_name(f"made-anew-{time.monotonic_ns()}"))
        else:
            return


def test_a_store_that_is_down_at_the_start_is_waited_for(site: Site) -> None:
    site.root.touch()
    with site.server() as server:
        wait_for(lambda: server.metric("ferry_follower_failures_total") >= 1, "a failure", START_SECONDS)
        assert server.health() == "NOT_SERVING"
        with pytest.raises(InferenceError, match=r"UNAVAILABLE: .*cannot be used"):
            server.plus()
        assert server.events("the last good version goes on") != []
        site.root.unlink()
        site.publish(model_files.plus(1))
        server.wait_until_healthy()
        assert server.plus() == 1


def test_the_heartbeat_tells_what_is_served_and_leaves_with_the_server(site: Site) -> None:
    site.publish(model_files.plus(1))
    with site.server() as server:
        server.wait_until_healthy()

        def reported() -> bool:
            report = served(site)
            return report is not None and (report.version, report.phase) == (1, "serving")

        wait_for(reported, "heartbeat", 20)
        heartbeat = beat(site)
        assert heartbeat is not None
        assert (heartbeat.role, heartbeat.pid) == ("grpc", server.process.pid)
    assert beat(site) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_requests_under_way_end(site: Site, number: signal.Signals) -> None:
    site.publish(model_files.slow())
    with site.server(flags=["--drain-seconds", "60"]) as server:
        server.wait_until_healthy()
        with ThreadPoolExecutor() as pool, plain_client(server.address, timeout=60) as client:
            calls = [pool.submit(client.infer, "m", {"x": ROW}) for _ in range(6)]
            wait_for(lambda: any(call.done() for call in calls), "the first answer", START_SECONDS)
            server.process.send_signal(number)
            assert not all(call.done() for call in calls), "the model is too fast for this test"
            assert [added(call.result()) for call in calls] == [1] * len(calls)
        assert server.process.wait(30) == 0
        assert server.events("draining") != []
        assert server.events("stopped") != []


def test_a_stop_says_not_serving_first_and_does_not_wait_for_watchers(site: Site) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    site.publish(model_files.plus(1))
    with site.server(flags=["--drain-seconds", "60"]) as server:
        server.wait_until_healthy()
        watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest(), timeout=30)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        server.process.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert server.plus() == 1, "requests are still answered while callers turn away"
        assert server.process.wait(20) == 0


def test_a_log_that_nobody_reads_any_more_keeps_nothing_from_happening(site: Site) -> None:
    site.publish(model_files.plus(1))
    process = subprocess.Popen(site.command(["m"], []), stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.stderr.close()
        address = "127.0.0.1:" + first.split('"port": ')[1].split(",")[0]
        with plain_client(address) as client:

            def answers() -> float | None:
                try:
                    return added(client.infer("m", {"x": ROW}))
                except InferenceError:
                    return None

            wait_for(lambda: answers() == 1, "the first version", START_SECONDS)
            site.publish(model_files.plus(2))
            wait_for(lambda: answers() == 2, "the second version", 20)
        process.terminate()
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_many_channels_come_and_go(site: Site) -> None:
    site.publish(model_files.plus(1))
    with site.server() as server:
        server.wait_until_healthy()
        for _ in range(30):
            with grpc.insecure_channel(server.address) as channel:
                live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
                assert live(b"", timeout=5) == b"\x08\x01"
        assert server.plus() == 1
