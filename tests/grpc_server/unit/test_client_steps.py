"""What a client does step by step, against the server's own endpoints, without a socket."""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeVar

import numpy as np
import pytest

from ferryline.grpc_server.client import (
    InputError,
    ModelNotFoundError,
    RequestRefusedError,
    Retry,
    TimedOutError,
)
from ferryline.grpc_server.client.errors import InferenceError, of_status
from ferryline.grpc_server.client.messages import Question
from ferryline.grpc_server.client.steps import REPLIES, Ask, Conversations, Steps
from ferryline.grpc_server.endpoint import endpoints
from ferryline.grpc_server.errors import InvalidRequestError, NotReadyError, NotServedError, RequestError
from ferryline.grpc_server.models import Models
from tests.grpc_server import model_files
from tests.grpc_server.shop import Shop, inline_executor, wait_until_version

_Result = TypeVar("_Result")

CODES: dict[type[RequestError], str] = {
    InvalidRequestError: "INVALID_ARGUMENT",
    NotServedError: "NOT_FOUND",
    NotReadyError: "UNAVAILABLE",
}
ROW = [[1, 2, 3, 4]]


class Wire:
    """Does the steps on the endpoints, after the failures it was given; its clock moves only by pauses."""

    def __init__(self, models: Models, *, check_inputs: bool = True) -> None:
        self._endpoints = {rpc.name: rpc for rpc in endpoints(models, executor=inline_executor())[1]}
        self.failures: list[InferenceError] = []
        self.asked: Counter[str] = Counter()
        self.pauses: list[float] = []
        self.now = 0.0
        self.client = Conversations(Retry(), check_inputs=check_inputs, clock=lambda: self.now)

    def do(self, steps: Steps[_Result]) -> _Result:
        try:
            step = next(steps)
            while True:
                if not isinstance(step, Ask):
                    self.pauses.append(step.seconds)
                    self.now += step.seconds
                    step = next(steps)
                    continue
                try:
                    reply = self._ask(step)
                except InferenceError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # what the steps return

    def _ask(self, step: Ask) -> Any:
        self.asked[step.method] += 1
        if self.failures:
            raise self.failures.pop(0)
        try:
            reply = self._endpoints[step.method](step.request.SerializeToString())
        except RequestError as error:
            raise of_status(CODES[type(error)], str(error)) from error
        assert isinstance(reply, bytes)
        return REPLIES[step.method].FromString(reply)

    def infer(self, inputs: Any, timeout: float | None = None, **question: Any) -> Any:
        return self.do(self.client.infer(Question("m", **question), inputs, timeout))


@pytest.fixture
def wire(shop: Shop) -> Wire:
    shop.publish("m", model_files.plus(5))
    return Wire(shop.follow("m"))


def test_what_a_model_takes_is_asked_once(wire: Wire) -> None:
    for _ in range(3):
        assert wire.infer(ROW)["y"].tolist() == [[6, 7, 8, 9]]
    assert wire.asked == {"ModelMetadata": 1, "ModelInfer": 3}


def test_without_checks_nothing_but_the_question_is_asked(shop: Shop) -> None:
    shop.publish("m", model_files.plus(5))
    wire = Wire(shop.follow("m"), check_inputs=False)
    assert wire.infer({"x": np.array(ROW, np.float32)})["y"][0, 0] == 6
    with pytest.raises(RequestRefusedError, match="is 'INT64', expected 'FP32'"):
        wire.infer({"x": np.array(ROW)})
    assert wire.asked == {"ModelInfer": 2}


def test_what_does_not_fit_is_not_sent(wire: Wire) -> None:
    with pytest.raises(InputError, match=r"takes \[-1, 4\], and the array is \[4\]"):
        wire.infer(ROW[0])
    with pytest.raises(InputError, match="no output 'z'; model 'm' gives 'y'"):
        wire.infer(ROW, outputs=["z"])
    assert wire.asked["ModelInfer"] == 0


def test_a_changed_contract_is_noticed_and_the_question_asked_in_its_words(shop: Shop) -> None:
    shop.publish("m", model_files.plus(5))
    models = shop.follow("m")
    wire = Wire(models)
    wire.infer(ROW)
    version = shop.publish("m", model_files.identity("int64", ["n", 2]), promote=False)
    shop.registry.promote("m", version, allow_contract_change=True)
    wait_until_version(next(iter(models)), version)
    # kept: four FP32. A row of two is no longer refused here, and one of four no longer sent
    assert wire.infer([[7, 8]])["y"].tolist() == [[7, 8]]
    with pytest.raises(InputError, match=r"takes \[-1, 2\]"):
        wire.infer(ROW)


def test_a_refusal_by_an_older_contract_is_overcome(shop: Shop) -> None:
    shop.publish("m", model_files.plus(5))
    models = shop.follow("m")
    wire = Wire(models)
    wire.infer(ROW)
    version = shop.publish("m", model_files.identity("int64", ["n", 4]), promote=False)
    shop.registry.promote("m", version, allow_contract_change=True)
    wait_until_version(next(iter(models)), version)
    # it fits what is kept, so it is sent as FP32, refused by the server, and sent again as INT64
    answer = wire.infer(ROW)
    assert answer["y"].dtype == np.int64
    assert wire.asked == {"ModelMetadata": 2, "ModelInfer": 3}


def test_a_server_that_is_away_for_a_moment_is_asked_again(wire: Wire) -> None:
    wire.failures = [of_status("UNAVAILABLE", "gone")] * 3
    assert wire.infer(ROW)["y"][0, 0] == 6
    assert len(wire.pauses) == 3


def test_the_last_try_says_what_is_wrong(wire: Wire) -> None:
    wire.failures = [of_status("UNAVAILABLE", f"gone {number}") for number in range(4)]
    with pytest.raises(InferenceError, match="UNAVAILABLE: gone 3"):
        wire.infer(ROW)


def test_an_overloaded_server_is_left_alone_for_as_long_as_it_asks(wire: Wire) -> None:
    wire.infer(ROW)
    wire.failures = [of_status("RESOURCE_EXHAUSTED", "full", 3.0)]
    wire.infer(ROW)
    assert 3.0 < wire.pauses[0] < 3.2


def test_no_wait_goes_beyond_the_timeout(wire: Wire) -> None:
    wire.infer(ROW)
    wire.failures = [of_status("RESOURCE_EXHAUSTED", "full", 3.0)]
    with pytest.raises(InferenceError, match="full"):
        wire.infer(ROW, timeout=2.0)
    assert wire.pauses == []


def test_what_stays_wrong_is_asked_once(wire: Wire) -> None:
    with pytest.raises(ModelNotFoundError, match="warm here: 1"):
        wire.infer(ROW, version="8")
    assert wire.asked == {"ModelMetadata": 1}


def test_versions_are_kept_apart(wire: Wire, shop: Shop) -> None:
    assert wire.infer(ROW, version="1").model.version == "1"
    assert wire.infer(ROW).model.version == "1"
    assert wire.asked["ModelMetadata"] == 2


def test_readiness_is_a_plain_answer(shop: Shop) -> None:
    shop.publish("m", model_files.plus(5))
    wire = Wire(shop.follow("m"))
    assert wire.do(wire.client.live(None))
    assert wire.do(wire.client.ready("", "", None))
    assert not wire.do(wire.client.ready("m", "8", None))
    wire.failures = [of_status("UNAVAILABLE", "gone")]
    assert not wire.do(wire.client.live(None))
    wire.failures = [of_status("UNAUTHENTICATED", "who are you")]
    with pytest.raises(InferenceError, match="who are you"):
        wire.do(wire.client.ready("", "", None))


def test_waiting_for_readiness_ends(wire: Wire) -> None:
    wire.failures = [of_status("UNAVAILABLE", "gone")] * 5
    wire.do(wire.client.wait_until_ready("m", "", 10.0))
    assert wire.now == pytest.approx(0.5)
    with pytest.raises(TimedOutError, match=r"model 'm' was not ready within 1\.0 s"):
        wire.do(wire.client.wait_until_ready("m", "8", 1.0))
