"""Requests that a shadow runs again: which, by which versions, and what is counted of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from ferryline.grpc_server.channels import FollowedChannel
from ferryline.grpc_server.endpoint import endpoints
from ferryline.grpc_server.errors import RequestError
from ferryline.grpc_server.execution.executor import Executor
from ferryline.grpc_server.execution.policy import BatchPolicy, ExecutionPolicy
from ferryline.grpc_server.models import Models
from ferryline.grpc_server.shadowing.metrics import ShadowCollector
from ferryline.grpc_server.shadowing.policy import BacklogLimits, ShadowPolicy
from ferryline.grpc_server.shadowing.sampling import KEPT_PAIRS, Shadow
from ferryline.grpc_server.shadowing.telling import MinuteLog, shadow_readiness
from ferryline.grpc_server.shadowing.worker import ShadowWorker
from ferryline.model_runtime.facts import read_facts
from ferryline.protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.shop import Shop, raw_request, wait_for, wait_until_version

ROW = np.array([[1, 2, 3, 4]], np.float32)
PAIR = 'model="m",shadow_version="2",version="1"'


def of_output(name: str) -> str:
    return f'model="m",output="{name}",shadow_version="2",version="1"'


class Stage:
    """A model with a channel that answers and one that is its shadow, and a worker that runs when told."""

    def __init__(self, shop: Shop, answers: bytes, shadow: bytes) -> None:
        self.shop = shop
        shop.publish("m", answers)
        self.to_staging(shadow)
        self.answering, self.staging = shop.follow("m", "m:staging").channels()
        self.executor = Executor(ExecutionPolicy())
        self.with_shadow()

    def with_shadow(
        self,
        share: float = 1.0,
        limits: BacklogLimits | None = None,
        lot: Any = random.random,
        channel: FollowedChannel | None = None,
    ) -> None:
        policy = ShadowPolicy("m", "staging", share)
        self.shadow = Shadow(policy, channel or self.staging, limits, lot)
        self.worker = ShadowWorker([self.shadow])
        self.models = Models([self.answering, self.staging], (), {"m": self.shadow})
        _, made = endpoints(self.models, executor=self.executor)
        self._infer = next(endpoint for endpoint in made if endpoint.name == "ModelInfer")

    def to_staging(self, data: bytes, canary: float | None = None) -> int:
        version = self.shop.registry.publish("m", data, read_facts(data)).version
        self.shop.registry.promote("m", version, channel="staging", allow_contract_change=True, canary=canary)
        return version

    def ask(self, request: pb.ModelInferRequest | None = None) -> pb.ModelInferResponse:
        async def answered() -> bytes:
            answer = self._infer((request or raw_request("m", x=ROW)).SerializeToString())
            return answer if isinstance(answer, bytes) else await answer

        return pb.ModelInferResponse.FromString(asyncio.run(answered()))

    def run_again(self) -> None:
        while self.worker.turn():
            pass

    def metrics(self) -> dict[str, float]:
        registry = CollectorRegistry()
        registry.register(ShadowCollector([self.shadow]))
        lines = generate_latest(registry).decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}


@contextmanager
def staged(shop: Shop, answers: bytes, shadow: bytes) -> Iterator[Stage]:
    made = Stage(shop, answers, shadow)
    yield made
    made.executor.close()


@pytest.fixture
def stage(shop: Shop) -> Iterator[Stage]:
    """1 adds 1 and answers, 2 adds 1.5."""
    with staged(shop, model_files.plus(1), model_files.plus(1.5)) as made:
        yield made


def test_every_answer_is_run_again_and_compared_by_the_short_way_and_the_long(stage: Stage) -> None:
    for number in range(5):
        stage.ask(raw_request("m", x=ROW * number))
    identified = raw_request("m", x=ROW)
    identified.id = "7"
    stage.ask(identified)
    stage.run_again()
    found = stage.metrics()
    assert found[f"ferry_shadow_compared_total{{{PAIR}}}"] == 6
    assert found[f"ferry_shadow_dropped_total{{{PAIR}}}"] == 0
    assert found[f"ferry_shadow_difference_sum{{{of_output('y')}}}"] == 3
    assert found[f'ferry_shadow_difference_bucket{{le="0.25",{of_output("y")}}}'] == 0
    assert found[f'ferry_shadow_difference_bucket{{le="0.5",{of_output("y")}}}'] == 6
    assert found[f"ferry_shadow_run_seconds_total{{{PAIR}}}"] > 0
    assert found[f"ferry_shadow_answer_run_seconds_total{{{PAIR}}}"] > 0
    assert found['ferry_shadow_version{channel="staging",model="m"}'] == 2


def test_no_model_is_run_for_a_shadow_before_the_worker_comes(stage: Stage) -> None:
    stage.ask()
    assert (len(stage.shadow.backlog), stage.shadow.pairs[1, 2].compared) == (1, 0)
    assert stage.staging.counters.of_version(2).runs == 0


def test_requests_for_a_version_or_a_channel_are_not_run_again(stage: Stage) -> None:
    for version in ("1", "2", "production", "staging"):
        stage.ask(raw_request("m", version=version, x=ROW))
    assert len(stage.shadow.backlog) == 0


def test_requests_without_an_answer_are_not_run_again(stage: Stage) -> None:
    with pytest.raises(RequestError):
        stage.ask(raw_request("m", x=np.zeros((1, 3), np.float32)))
    assert len(stage.shadow.backlog) == 0


def test_labels_agree_or_not_and_scores_differ_by_so_much(shop: Shop) -> None:
    with staged(shop, model_files.above(3), model_files.above(5)) as stage:
        stage.ask(raw_request("m", x=np.arange(10, dtype=np.float32)))
        stage.ask(raw_request("m", x=np.array([4], np.float32)))
        stage.run_again()
        pair, found = stage.shadow.pairs[1, 2], stage.metrics()
        assert (pair.outputs["label"].labels, pair.outputs["label"].agreed) == (11, 8)
        assert (pair.outputs["score"].largest, pair.outputs["score"].distance_sum) == (2.0, 4.0)
        assert found[f"ferry_shadow_labels_total{{{of_output('label')}}}"] == 11
        assert found[f"ferry_shadow_agreed_total{{{of_output('label')}}}"] == 8
        assert f"ferry_shadow_labels_total{{{of_output('score')}}}" not in found
        assert found[f"ferry_shadow_difference_count{{{of_output('score')}}}"] == 2
        assert f"ferry_shadow_difference_count{{{of_output('label')}}}" not in found


def test_requested_outputs_are_those_compared(shop: Shop) -> None:
    with staged(shop, model_files.above(3), model_files.above(5)) as stage:
        request = raw_request("m", x=np.arange(10, dtype=np.float32))
        request.outputs.add(name="label")
        stage.ask(request)
        stage.run_again()
        assert set(stage.shadow.pairs[1, 2].outputs) == {"label"}


def test_a_share_is_drawn_by_lot(stage: Stage) -> None:
    stage.with_shadow(0.3, lot=random.Random(11).random)  # noqa: S311 - the same lots every time
    for _ in range(200):
        stage.ask()
    lots = random.Random(11)  # noqa: S311 - likewise
    assert len(stage.shadow.backlog) == sum(lots.random() < 0.3 for _ in range(200))


def test_what_does_not_fit_is_dropped_and_counted(stage: Stage) -> None:
    stage.with_shadow(limits=BacklogLimits(requests=3))
    replies = [stage.ask() for _ in range(10)]
    assert {reply.model_version for reply in replies} == {"1"}
    stage.run_again()
    pair = stage.shadow.pairs[1, 2]
    assert (pair.compared, pair.dropped) == (3, 7)
    stage.with_shadow(limits=BacklogLimits(size=3 * ROW.nbytes))
    for _ in range(2):
        stage.ask()  # each has a row of inputs and one of outputs
    assert stage.shadow.pairs[1, 2].dropped == 1


def test_the_same_version_is_not_compared_with_itself(stage: Stage) -> None:
    stage.shop.registry.promote("m", 2)
    wait_until_version(stage.answering, 2)
    assert stage.ask().model_version == "2"
    assert not stage.shadow.pairs


def test_a_shadow_of_which_nothing_serves_costs_nothing(stage: Stage) -> None:
    (empty,) = stage.shop.follow("m:nothing", wait=False).channels()
    stage.with_shadow(channel=empty)
    stage.ask()
    assert not stage.shadow.pairs
    assert shadow_readiness([stage.shadow])["m:staging"]["version"] is None


def test_each_pair_of_versions_is_counted_by_itself(stage: Stage) -> None:
    stage.ask()
    wait_until_version(stage.staging, stage.to_staging(model_files.plus(3)))
    stage.ask()
    stage.shop.publish("m", model_files.plus(4))
    wait_until_version(stage.answering, 4)
    stage.ask()
    stage.run_again()
    counted = {key: (pair.compared, pair.outputs["y"].largest) for key, pair in stage.shadow.pairs.items()}
    # the pair is what was served when the request came, though it was run again later
    assert counted == {(1, 2): (1, 0.5), (1, 3): (1, 2.0), (4, 3): (1, 1.0)}


def test_answers_of_a_canary_are_compared_as_well(stage: Stage) -> None:
    version = stage.shop.publish("m", model_files.plus(5), promote=False)
    stage.shop.registry.promote("m", version, canary=50)
    wait_for(lambda: len(stage.models.get("m").default.by_version) == 2, "the canary")
    versions = [int(stage.ask().model_version) for _ in range(60)]
    stage.run_again()
    counted = {key: pair.compared for key, pair in stage.shadow.pairs.items()}
    assert counted == {(1, 2): versions.count(1), (version, 2): versions.count(version)}


def test_another_contract_is_counted_told_once_and_not_run(stage: Stage) -> None:
    version = stage.to_staging(model_files.plus(1, features=5))
    wait_until_version(stage.staging, version)
    log = MinuteLog([stage.shadow])
    with capture_logs() as lines:
        for _ in range(3):
            stage.ask()
            log.tell()
    assert len(stage.shadow.backlog) == 0
    assert stage.shadow.pairs[1, version].failed == {"contract": 3}
    assert [(line["event"], line["reason"]) for line in lines] == [
        ("a shadow cannot be compared", "input 'x' had shape [-1, 4] and has [-1, 5]")
    ]


def test_a_shadow_that_cannot_be_run_is_counted(shop: Shop) -> None:
    with staged(shop, model_files.lookup(20), model_files.lookup(10)) as stage:
        request = pb.ModelInferRequest(model_name="m")
        request.inputs.add(name="x", datatype="INT64", shape=[1])
        for number in (3, 15):
            del request.raw_input_contents[:]
            request.raw_input_contents.append(np.array([number], np.int64).tobytes())
            stage.ask(request)
        stage.run_again()
        pair = stage.shadow.pairs[1, 2]
        assert (pair.compared, pair.failed) == (1, {"run": 1})
        labels = 'model="m",reason="run",shadow_version="2",version="1"'
        assert stage.metrics()[f"ferry_shadow_failed_total{{{labels}}}"] == 1


def test_what_is_not_finite_is_counted(stage: Stage) -> None:
    wait_until_version(stage.staging, version := stage.to_staging(model_files.plus(float("inf"))))
    stage.ask()
    stage.run_again()
    pair = stage.shadow.pairs[1, version]
    assert (pair.compared, pair.failed, pair.outputs) == (1, {"non_finite": 1}, {})


def test_a_fault_of_the_comparison_costs_one_request_and_no_answer(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_given: object, **_named: object) -> None:
        raise MemoryError

    stage.ask()
    monkeypatch.setattr("ferryline.grpc_server.shadowing.worker.compare", fails)
    stage.run_again()
    assert stage.shadow.pairs[1, 2].failed == {"fault": 1}
    monkeypatch.setattr("ferryline.grpc_server.shadowing.sampling.held_bytes", fails)
    assert stage.ask().model_version == "1"
    assert len(stage.shadow.backlog) == 0


def test_what_waits_does_not_keep_versions_alive(shop: Shop) -> None:
    with staged(shop, model_files.plus(1), model_files.plus(2)) as stage:
        stage.ask()
        for number in range(3, 8):
            wait_until_version(stage.staging, stage.to_staging(model_files.plus(number)))
        wait_for(lambda: 2 not in stage.staging.by_version, "the oldest version to go")
        # the follower's thread lets go of it when it has told its observers
        (waiting,) = stage.shadow.backlog._waiting
        wait_for(lambda: waiting.session() is None, "the session to go")
        stage.run_again()
        pair = stage.shadow.pairs[1, 2]
        assert (pair.compared, pair.dropped) == (0, 1)


def test_pairs_are_bounded(stage: Stage) -> None:
    offering, shadow = stage.answering.current, stage.staging.current
    assert offering is not None
    assert shadow is not None
    for number in range(10, 40):
        manifest = offering.served.manifest.model_copy(update={"version": number})
        object.__setattr__(offering.served, "manifest", manifest)
        assert stage.shadow.sample(offering, {}) is not None
    assert list(stage.shadow.pairs) == [(number, 2) for number in range(40 - KEPT_PAIRS, 40)]


def test_batched_answers_are_compared_one_by_one(stage: Stage) -> None:
    stage.executor = Executor(ExecutionPolicy(batching={"m": BatchPolicy(8)}))
    stage.with_shadow()
    _, made = endpoints(stage.models, executor=stage.executor)
    infer = next(endpoint for endpoint in made if endpoint.name == "ModelInfer")

    async def ask_together() -> None:
        answers = [infer(raw_request("m", x=ROW * number).SerializeToString()) for number in range(8)]
        await asyncio.gather(*(each for each in answers if not isinstance(each, bytes)))

    for _ in range(2):  # the first batch of a version is run one by one as well
        asyncio.run(ask_together())
    stage.run_again()
    pair = stage.shadow.pairs[1, 2]
    assert (pair.compared, pair.outputs["y"].largest) == (16, 0.5)
    stage.executor.close()


def test_the_log_tells_what_is_new_once_a_minute(stage: Stage) -> None:
    now = [0.0]
    log = MinuteLog([stage.shadow], clock=lambda: now[0])
    told = []
    for requests in (2, 0, 3):
        for _ in range(requests):
            stage.ask()
        stage.run_again()
        with capture_logs() as lines:
            log.tell_if_due()
            assert not lines
            now[0] += 60
            log.tell_if_due()
        told.append([(line["event"], line["compared"], line["largest_difference"]) for line in lines])
    assert told == [[("shadow compared", 2, 0.5)], [], [("shadow compared", 3, 0.5)]]


def test_readiness_tells_which_versions_are_compared(stage: Stage) -> None:
    stage.ask()
    stage.run_again()
    found = shadow_readiness([stage.shadow])["m:staging"]
    assert found["pairs"] == [
        {
            "version": 1,
            "shadow_version": 2,
            "compared": 1,
            "labels": 0,
            "agreed": 0,
            "failed": 0,
            "dropped": 0,
            "largest_difference": 0.5,
            "not_comparable": None,
        }
    ]
    assert (found["share"], found["version"], found["phase"], found["waiting"]) == (1.0, 2, "serving", 0)


def test_the_worker_runs_on_its_own_thread_until_it_is_stopped(stage: Stage) -> None:
    stage.worker.start()
    stage.ask()
    wait_for(lambda: (1, 2) in stage.shadow.pairs and stage.shadow.pairs[1, 2].compared == 1, "it")
    with capture_logs() as lines:
        stage.worker.stop()
    assert not stage.worker._thread.is_alive()
    assert [line["event"] for line in lines] == ["shadow compared"]
