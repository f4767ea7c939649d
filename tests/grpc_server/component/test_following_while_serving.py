"""A server while its models change, and while the store misbehaves."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Self

import pytest

from ferryline.grpc_server.client import InferenceError
from ferryline.model_runtime.facts import read_facts
from ferryline.registry import Registry, keys
from ferryline.registry.documents import Heartbeat, ServedModelReport
from tests.grpc_server import model_files
from tests.grpc_server.running_server import ROW, RunningServer, added, plain_client
from tests.grpc_server.server_in_process import Site
from tests.support.waiting import wait_for


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return Site(tmp_path_factory.mktemp("site"))


class Caller:
    """Calls without a pause from several threads, and keeps what came of it."""

    THREADS = 3

    def __init__(self, server: RunningServer) -> None:
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


def serves(server: RunningServer, number: float) -> None:
    wait_for(lambda: server.plus() == number, f"version that adds {number}")


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


def test_a_model_published_after_the_start_is_taken_up(site: Site) -> None:
    with site.server() as server:
        assert server.health() == "NOT_SERVING"
        with pytest.raises(InferenceError, match=r"UNAVAILABLE: .* nothing is promoted there yet"):
            server.plus()
        site.publish(model_files.plus(7))
        server.wait_until_healthy()
        assert server.plus() == 7


def refused(site: Site, server: RunningServer, gate: str, generation: int) -> ServedModelReport:
    """Wait until a refusal shows in the heartbeat and in the metrics."""

    def shown() -> bool:
        report = served(site)
        return report is not None and report.refused_gate == gate

    wait_for(shown, f"refusal by {gate}")
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
        # promoted and altered where no server looks; then the version comes, and at last its promotion
        elsewhere = site.folder / "elsewhere"
        shutil.copytree(site.root, elsewhere, ignore=shutil.ignore_patterns("consumers"))
        data, registry = model_files.plus(2), Registry.open(elsewhere.as_uri(), actor="tester")
        registry.promote("m", registry.publish("m", data, read_facts(data)).version)
        manifest = elsewhere / "models/m/versions/0000000002.json"
        manifest.write_bytes(
            manifest.read_bytes().replace(b'"schema_version":"1.0"', b'"schema_version":"2.0"')
        )
        for left_out in ("channels", "nothing else"):
            ignored = shutil.ignore_patterns(left_out)
            shutil.copytree(
                elsewhere, site.root, ignore=ignored, copy_function=_put_whole, dirs_exist_ok=True
            )
        report = refused(site, server, "schema", 2)
        assert "schema version 2.0" in (report.last_error or "")
        assert server.plus() == 1


def _put_whole(source: str, target: str) -> None:
    """Copy a file so that nobody sees half of it."""
    half = Path(f"{source}.half")
    shutil.copy(source, half)
    half.replace(target)


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
    with site.server() as server:
        server.wait_until_healthy()
        with Caller(server) as caller:
            site.take_away()
            wait_for(lambda: server.metric("ferry_follower_failing_seconds") > 0.5, "failing")
            assert server.metric("ferry_follower_failures_total") >= 1
            assert (server.health(), server.plus()) == ("SERVING", 1)
            site.bring_back()
            wait_for(lambda: server.metric("ferry_follower_failing_seconds") == 0, "recovery")
            site.publish(model_files.plus(2))
            serves(server, 2)
        assert caller.failures == []


def test_a_store_that_is_down_at_the_start_is_waited_for(site: Site) -> None:
    site.root.touch()
    with site.server() as server:
        wait_for(lambda: server.metric("ferry_follower_failures_total") >= 1, "a failure")
        assert server.health() == "NOT_SERVING"
        with pytest.raises(InferenceError, match=r"UNAVAILABLE: .*cannot be used"):
            server.plus()
        assert server.events("nothing serves yet") != []
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

        wait_for(reported, "heartbeat")
        heartbeat = beat(site)
        assert heartbeat is not None
        assert (heartbeat.role, heartbeat.pid) == ("grpc", os.getpid())
    assert beat(site) is None
