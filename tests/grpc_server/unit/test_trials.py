"""A server that goes back from a version that does worse, on real followers and sessions."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from ferryline.grpc_server.channels import FollowedChannel
from ferryline.grpc_server.counters import KEPT_VERSIONS
from ferryline.grpc_server.errors import InvalidRequestError
from ferryline.grpc_server.models import Models
from ferryline.grpc_server.regression import TrialPolicy
from ferryline.grpc_server.trials import TrialJudge
from ferryline.model_runtime.follower import FollowerObserver
from ferryline.model_runtime.follower.rules import Phase
from ferryline.model_runtime.served import ServedModel
from ferryline.protos.grpc_service_pb2 import ModelInferRequest
from tests.grpc_server import model_files
from tests.grpc_server.shop import Shop, infer, raw_request, scrape, wait_for, wait_until_version

POLICY = TrialPolicy(least_requests=5, least_faults=3, requests=20)

# beyond a table of ten and within one of twenty
FIFTEEN = ModelInferRequest(model_name="m", raw_input_contents=[np.array([15], "<i8").tobytes()])
FIFTEEN.inputs.add(name="x", datatype="INT64", shape=[1])


class _Notes(FollowerObserver):
    """Notes what serves, one after the other, and counts how often the channel was read."""

    def __init__(self) -> None:
        self.versions: list[int] = []
        self.polls = 0

    def polled(self) -> None:
        self.polls += 1

    def swapped(self, served: ServedModel, seconds: float) -> None:
        self.versions.append(served.version)


class Bench:
    """A model that looks numbers up in a table, whose size is the version's quality; version 1 serves."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        shop.publish("m", model_files.lookup(20))
        self.models: Models = shop.follow("m", judged=self._judged)
        self.channel = self.models.get("m").default
        self.ask(10)

    def _judged(self, channel: FollowedChannel) -> None:
        self.notes = _Notes()
        channel.follower.observe(self.notes)
        self.clock = 0.0
        self.judge = TrialJudge(channel, POLICY, clock=lambda: self.clock)

    def ask(self, times: int) -> None:
        for _ in range(times):
            with contextlib.suppress(InvalidRequestError):
                infer(self.models, FIFTEEN)

    def promote(self, size: int) -> int:
        version = self.shop.publish("m", model_files.lookup(size))
        wait_until_version(self.models.get("m"), version)
        wait_for(lambda: self.judge._trial is not None, "the trial")
        return version

    def version(self) -> int:
        current = self.channel.current
        assert current is not None
        return current.served.version


@pytest.fixture
def bench(shop: Shop) -> Bench:
    return Bench(shop)


def test_a_version_that_fails_is_left_and_refused(bench: Bench) -> None:
    bench.promote(10)  # 15 lies beyond its table
    bench.ask(5)
    bench.judge.look()
    wait_for(lambda: bench.version() == 1, "the fall-back")
    assert bench.channel.follower.report().generation == 1
    wait_for(lambda: bench.channel.counters.refusals["regression"] == 1, "the refusal")
    report = bench.channel.follower.report()
    assert (report.refused_generation, report.refused_gate) == (2, "regression")
    assert "could not be run on 100.0% of 5 requests" in (report.last_error or "")
    (refusal,) = bench.shop.registry.refusals("m").newest()
    assert (refusal.gate, refusal.version, refusal.generation) == ("regression", 2, 2)
    found = scrape(bench.models)
    assert found['ferry_refusals_total{channel="production",gate="regression",model="m"}'] == 1
    assert found['ferry_generations_behind{channel="production",model="m"}'] == 1
    assert found['ferry_run_failures{model="m",version="2"}'] == 5
    # what was left can still be asked for, and is not tried again
    assert list(bench.channel.by_version) == [1, 2]
    bench.judge.look()
    assert bench.version() == 1


def test_a_version_is_held_against_one_that_has_served_through_many_canaries(bench: Bench) -> None:
    for canary in range(100, 100 + KEPT_VERSIONS):
        bench.channel.counters.of_version(canary)
    bench.promote(10)
    bench.ask(5)
    bench.judge.look()
    wait_for(lambda: bench.version() == 1, "the fall-back")


def test_a_newer_generation_is_tried_again_and_may_pass(bench: Bench) -> None:
    bench.promote(10)
    bench.ask(5)
    bench.judge.look()
    wait_for(lambda: bench.version() == 1, "the fall-back")
    bench.promote(30)
    bench.ask(20)
    bench.judge.look()
    assert bench.version() == 3
    assert bench.judge._trial is None, "it has passed"
    assert bench.channel.follower.report().refused_gate is None


def test_a_hold_and_a_release_name_the_version_that_was_left_and_are_no_new_trial(bench: Bench) -> None:
    bench.promote(10)
    bench.ask(5)
    bench.judge.look()
    wait_for(lambda: bench.version() == 1, "the fall-back")
    follower, notes = bench.channel.follower, bench.notes
    for change in (bench.shop.registry.hold, bench.shop.registry.release):
        generation = change("m").generation
        wait_for(lambda to=generation: follower.newest.generation == to, f"generation {generation}")  # type: ignore[misc,union-attr]
        wait_for(lambda more=notes.polls + 2: notes.polls >= more, "two more looks")  # type: ignore[misc]
    assert (notes.versions, follower.report().phase) == ([1, 2, 1], Phase.SERVING)
    report = follower.report()
    assert (report.generation, report.refused_generation, report.refused_gate) == (1, 2, "regression")
    assert scrape(bench.models)['ferry_generations_behind{channel="production",model="m"}'] == 3


def test_a_promote_of_the_version_that_was_left_is_a_new_trial(bench: Bench) -> None:
    bench.promote(10)
    bench.ask(5)
    bench.judge.look()
    wait_for(lambda: bench.version() == 1, "the fall-back")
    bench.shop.registry.hold("m")
    bench.shop.registry.release("m")
    bench.shop.registry.promote("m", 2)
    wait_until_version(bench.models.get("m"), 2)
    wait_for(lambda: bench.judge._trial is not None, "the trial")
    bench.ask(5)
    bench.judge.look()
    wait_for(lambda: bench.version() == 1, "the fall-back")


def test_a_hold_of_what_serves_is_taken_up_and_ends_no_trial(bench: Bench) -> None:
    bench.promote(10)
    generation = bench.shop.registry.hold("m").generation
    wait_for(lambda: bench.channel.follower.report().generation == generation, "the hold")
    bench.ask(5)
    bench.judge.look()
    wait_for(lambda: bench.version() == 1, "the fall-back")


def test_callers_own_faults_are_no_faults_of_the_version(bench: Bench) -> None:
    version = bench.promote(20)
    for _ in range(30):
        with pytest.raises(InvalidRequestError):
            infer(bench.models, raw_request("m", x=np.zeros((1, 4), np.float32)))
    bench.judge.look()
    assert bench.version() == version
    assert bench.judge._trial is not None


def test_a_rollback_is_no_trial(bench: Bench) -> None:
    bench.promote(10)
    bench.promote(30)
    bench.ask(20)
    bench.shop.registry.rollback("m")
    wait_until_version(bench.models.get("m"), 2)
    assert bench.judge._trial is None
    bench.ask(20)
    bench.judge.look()
    assert bench.version() == 2, "someone wanted it"


def test_a_trial_ends_with_its_time(bench: Bench) -> None:
    bench.promote(10)
    bench.clock = POLICY.seconds
    bench.judge.look()
    assert bench.judge._trial is None
    bench.ask(20)
    bench.judge.look()
    assert bench.version() == 2
