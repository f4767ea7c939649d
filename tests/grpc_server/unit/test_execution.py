"""Execution on real sessions: where requests run, who waits, and what becomes of those who leave."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from ferryline.grpc_server.call import UNBOUNDED, Call
from ferryline.grpc_server.datatypes import Array
from ferryline.grpc_server.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
)
from ferryline.grpc_server.execution import probing
from ferryline.grpc_server.execution.executor import Executor
from ferryline.grpc_server.execution.policy import BatchPolicy, ExecutionPolicy, QueueLimits
from ferryline.grpc_server.inference import InferenceHandler
from ferryline.grpc_server.models import Models
from ferryline.grpc_server.offering import Offering
from ferryline.grpc_server.provenance import Provenance
from ferryline.grpc_server.tensors import encode_raw
from ferryline.model_runtime.session import OnnxSession, RunStop
from ferryline.protos import grpc_service_pb2 as pb
from tests.grpc_server import model_files
from tests.grpc_server.shop import Shop, float_output, raw_request, text_request, wait_until_version
from tests.support.waiting import DEADLINE, wait_for_async

NEVER_INLINE = 0
ALWAYS_INLINE = 10**15
Reply = pb.ModelInferResponse


class Held:
    """A real session whose runs wait until they are let go, so that a test decides who comes before whom."""

    def __init__(self, session: OnnxSession) -> None:
        self._session = session
        self._go = Event()
        self.began: list[int] = []

    def run(
        self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None, stop: RunStop | None = None
    ) -> dict[str, Array]:
        self.began.append(len(next(iter(feeds.values()))))
        assert self._go.wait(DEADLINE)
        return self._session.run(feeds, outputs, stop)

    def let_go(self) -> None:
        self._go.set()


class Within(type(UNBOUNDED)):  # type: ignore[misc]
    """A call whose caller waits so many seconds more, whenever that is asked."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def seconds_left(self) -> float | None:
        return self._seconds


@contextmanager
def executing(
    models: Models,
    *,
    inline_ns: int = NEVER_INLINE,
    threads: int = 1,
    requests: int = 1000,
    size: int = 2**30,
    **batching: BatchPolicy,
) -> Iterator[tuple[Executor, Callable[..., Any]]]:
    executor = Executor(ExecutionPolicy(inline_ns, threads, QueueLimits(requests, size), batching))
    try:
        yield executor, InferenceHandler(models, executor)
    finally:
        executor.close()


def current(models: Models, name: str = "m") -> Offering:
    offering = models.get(name).current
    assert offering is not None
    return offering


def held(models: Models, name: str = "m") -> Held:
    offering = current(models, name)
    offering.session = found = Held(offering.session)  # type: ignore[assignment]
    return found


def endless(models: Models, folder: Path) -> Held:
    """Lets version 1 run as long as a request asks; the load gate would not let such a file pass."""
    file = folder / "endless.onnx"
    file.write_bytes(model_files.as_long_as_asked())
    current(models).session = found = Held(OnnxSession(file))  # type: ignore[assignment]
    found.let_go()
    return found


def row(number: float, rows: int = 1) -> pb.ModelInferRequest:
    return raw_request("m", x=np.full((rows, 4), number, np.float32))


def task(answer: Awaitable[Reply]) -> asyncio.Task[Reply]:
    return asyncio.ensure_future(answer)  # type: ignore[return-value]


def follow(shop: Shop, data: bytes, name: str = "m") -> Models:
    shop.publish(name, data)
    return shop.follow(name)


def of(models: Models, name: str = "m", version: int = 1) -> Any:
    return models.get(name).versions()[version]


# --- where a request runs -------------------------------------------------------------------------


async def test_a_short_run_is_answered_at_once_and_a_long_one_later(shop: Shop) -> None:
    models = follow(shop, model_files.plus(1))
    with executing(models, inline_ns=ALWAYS_INLINE) as (_, infer):
        assert float_output(infer(row(1)))[0, 0] == 2
    with executing(models, inline_ns=NEVER_INLINE) as (_, infer):
        answer = infer(row(1))
        assert not isinstance(answer, Reply)
        assert float_output(await answer)[0, 0] == 2
    assert (of(models).success, of(models).runs) == (2, 2)


@pytest.mark.parametrize("took", [2_000, 2 * probing.LONG_NS])
async def test_a_fresh_version_is_known_to_be_short_or_long_before_its_first_request(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, took: int
) -> None:
    monkeypatch.setattr(probing, "thread_time_ns", itertools.count(0, took).__next__)
    models = follow(shop, model_files.plus(1))
    assert current(models).costs.expected(1) == took


async def test_what_a_run_costs_is_learnt_by_rows(shop: Shop) -> None:
    models = follow(shop, model_files.plus(1))
    costs = current(models).costs
    before = costs.expected(4096)
    with executing(models) as (_, infer):
        for _ in range(3):
            await infer(row(1, rows=4096))
    assert costs.expected(4096) < before


async def test_a_fault_comes_out_of_a_thread_with_its_words(shop: Shop) -> None:
    models = follow(shop, model_files.lookup())
    with executing(models) as (_, infer), pytest.raises(InvalidRequestError, match="cannot be run on inputs"):
        await infer(numbers([77]))
    assert of(models).failure == 1


# --- batches --------------------------------------------------------------------------------------


def numbers(values: Sequence[int], name: str = "m") -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=name)
    request.inputs.add(name="x", datatype="INT64", shape=[len(values)])
    request.raw_input_contents.append(np.array(values, np.int64).tobytes())
    return request


@pytest.mark.parametrize("inline_ns", [ALWAYS_INLINE, NEVER_INLINE])
async def test_requests_of_one_moment_run_together(shop: Shop, inline_ns: int) -> None:
    models = follow(shop, model_files.plus(1))
    with executing(models, inline_ns=inline_ns, m=BatchPolicy(64)) as (_, infer):
        for turn in range(3):
            replies = await asyncio.gather(*[infer(row(number, rows=number)) for number in range(1, 6)])
            for number, reply in enumerate(replies, 1):
                np.testing.assert_array_equal(float_output(reply), np.full((number, 4), number + 1))
            # the first batch is also run one by one, to see that it gives the same
            assert of(models).runs == 6 + turn
    assert (of(models).success, of(models).rows) == (15, 45)
    assert of(models).pending == 0


async def test_a_batch_has_no_more_rows_than_allowed_and_a_larger_request_runs_alone(shop: Shop) -> None:
    models = follow(shop, model_files.plus(1))
    current(models).joining_proven = True
    session = held(models)
    session.let_go()
    with executing(models, m=BatchPolicy(4)) as (_, infer):
        replies = await asyncio.gather(*[infer(row(1, rows=rows)) for rows in (2, 2, 1, 9, 3)])
    assert [len(float_output(reply)) for reply in replies] == [2, 2, 1, 9, 3]
    assert session.began == [4, 1, 9, 3]


async def test_a_lone_request_waits_for_others_as_long_as_the_delay(shop: Shop) -> None:
    models = follow(shop, model_files.plus(1))
    with executing(models, inline_ns=ALWAYS_INLINE, m=BatchPolicy(64, 20_000)) as (_, infer):
        await infer(row(1))
    assert of(models).queue_ns >= 20e6


async def test_requests_of_other_shapes_and_outputs_are_not_joined(shop: Shop) -> None:
    models = follow(shop, model_files.identity("float32", ["rows", "length"]))
    current(models).joining_proven = True
    session = held(models)
    session.let_go()
    wide = [raw_request("m", x=np.ones((1, length), np.float32)) for length in (3, 5, 3, 5, 3)]
    with executing(models, m=BatchPolicy(64)) as (_, infer):
        replies = await asyncio.gather(*[infer(request) for request in wide])
    assert [float_output(reply).shape[1] for reply in replies] == [3, 5, 3, 5, 3]
    assert sorted(session.began) == [2, 3]


def two(first: int, *outputs: str) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="m")
    for name, value in (("a", first), ("b", 1)):
        request.inputs.add(name=name, datatype="INT64", shape=[1, 3])
        request.raw_input_contents.append(np.full(3, value, np.int64).tobytes())
    for output in outputs:
        request.outputs.add(name=output)
    return request


async def test_requests_with_several_inputs_are_joined_by_the_outputs_they_want(shop: Shop) -> None:
    models = follow(shop, model_files.sum_and_difference())
    with executing(models, m=BatchPolicy(64)) as (_, infer):
        asked = [two(10), two(20, "sum"), two(30), two(40, "sum")]
        replies = await asyncio.gather(*[infer(request) for request in asked])
    sums = [np.frombuffer(reply.raw_output_contents[0], np.int64)[0] for reply in replies]
    assert sums == [11, 21, 31, 41]
    assert [len(reply.outputs) for reply in replies] == [3, 1, 3, 1]
    assert of(models).runs == 3 + 1  # the first batch is proven, and proves for the version


async def test_texts_are_batched_like_numbers(shop: Shop) -> None:
    models = follow(shop, model_files.identity("string", ["n"]))
    datatype = current(models).inputs["x"].datatype
    raws = [encode_raw(np.array(texts, object), datatype) for texts in (["a", "é"], [""], ["long" * 99])]
    with executing(models, m=BatchPolicy(64)) as (_, infer):
        for _ in range(2):
            asked = []
            for raw, count in zip(raws, (2, 1, 1), strict=True):
                request = pb.ModelInferRequest(model_name="m", raw_input_contents=[raw])
                request.inputs.add(name="x", datatype="BYTES", shape=[count])
                asked.append(infer(request))
            replies = await asyncio.gather(*asked)
            assert [reply.raw_output_contents[0] for reply in replies] == raws
    assert of(models).runs == 4 + 1


async def test_one_bad_request_does_not_spoil_the_batch(shop: Shop) -> None:
    models = follow(shop, model_files.lookup())
    with executing(models, m=BatchPolicy(64)) as (_, infer):
        asked = [infer(numbers(values)) for values in ([1], [2, 3], [99], [4])]
        found = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(found[2], InvalidRequestError)
    good = [float_output(reply).tolist() for reply in found if isinstance(reply, Reply)]
    assert good == [[100], [200, 300], [400]]
    assert (of(models).success, of(models).failure) == (3, 1)


async def test_rows_that_touch_each_other_are_found_out_and_never_joined_again(shop: Shop) -> None:
    models = follow(shop, model_files.less_the_mean())
    asked = [row(number) for number in (1, 5)]
    for request in asked:
        request.outputs.add(name="y")
    with executing(models, m=BatchPolicy(64)) as (_, infer):
        for _ in range(2):
            replies = await asyncio.gather(*[infer(request) for request in asked])
            assert [float_output(reply).any() for reply in replies] == [False, False]
    assert not current(models).joinable
    assert of(models).runs == 3 + 2


async def test_equal_rows_prove_nothing_of_how_rows_touch_each_other(shop: Shop) -> None:
    models = follow(shop, model_files.less_the_mean())
    with executing(models, m=BatchPolicy(64)) as (_, infer):
        for numbers in ((3, 3), (1, 5)):
            asked = [row(number) for number in numbers]
            for request in asked:
                request.outputs.add(name="y")
            replies = await asyncio.gather(*[infer(request) for request in asked])
            assert [float_output(reply).any() for reply in replies] == [False, False]
    assert not current(models).joinable


async def test_an_output_without_rows_keeps_a_request_alone(shop: Shop) -> None:
    models = follow(shop, model_files.less_the_mean())
    with executing(models, m=BatchPolicy(64)) as (_, infer):
        replies = await asyncio.gather(*[infer(row(number)) for number in (1, 5)])
    assert [float_output(reply, "mean")[0] for reply in replies] == [1, 5]
    assert of(models).runs == 2


async def test_a_model_of_fixed_rows_is_never_joined(shop: Shop) -> None:
    models = follow(shop, model_files.identity("float32", [1, 4]))
    with executing(models, m=BatchPolicy(64)) as (_, infer):
        replies = await asyncio.gather(*[infer(row(number)) for number in (1, 5)])
    assert [float_output(reply)[0, 0] for reply in replies] == [1, 5]
    assert of(models).runs == 2


async def test_an_empty_request_is_answered_among_others(shop: Shop) -> None:
    models = follow(shop, model_files.plus(1))
    with executing(models, m=BatchPolicy(64)) as (_, infer):
        replies = await asyncio.gather(*[infer(row(1, rows=rows)) for rows in (1, 0, 2)])
    assert [len(float_output(reply)) for reply in replies] == [1, 0, 2]


# --- those who wait -------------------------------------------------------------------------------


async def test_a_request_keeps_the_version_it_took_while_it_waits(shop: Shop) -> None:
    models = follow(shop, model_files.plus(1))
    session = held(models)
    with executing(models, m=BatchPolicy(64)) as (_, infer):
        old = [task(infer(row(0))) for _ in range(3)]
        await wait_for_async(lambda: session.began, "the run to begin")
        old += [task(infer(row(0))) for _ in range(3)]
        await asyncio.sleep(0)
        shop.publish("m", model_files.plus(2))
        await asyncio.to_thread(wait_until_version, models.get("m"), 2)
        new = [task(infer(row(0))) for _ in range(3)]
        session.let_go()
        answers = [(reply.model_version, float_output(reply)[0, 0]) for reply in await asyncio.gather(*old)]
        assert answers == [("1", 1)] * 6
        answers = [(reply.model_version, float_output(reply)[0, 0]) for reply in await asyncio.gather(*new)]
        assert answers == [("2", 2)] * 3


async def test_beyond_the_bound_of_requests_callers_are_told_when_to_come_back(shop: Shop) -> None:
    models = follow(shop, model_files.plus(1))
    session = held(models)
    with executing(models, requests=3) as (executor, infer):
        running = task(infer(row(0)))
        await wait_for_async(lambda: session.began, "the run to begin")
        waiting = [task(infer(row(number))) for number in range(3)]
        await asyncio.sleep(0)
        assert (executor.waiting("m"), of(models).pending) == (3, 3)
        with pytest.raises(OverloadedError, match=r"model 'm' is overloaded: 3 requests wait") as caught:
            infer(row(9))
        assert caught.value.retry_after > 0
        session.let_go()
        replies = await asyncio.gather(running, *waiting)
        assert [float_output(reply)[0, 0] for reply in replies] == [1, 1, 2, 3]
        await infer(row(9))
    counters = of(models)
    assert (counters.overloaded, counters.failure, counters.success, counters.pending) == (1, 1, 5, 0)


async def test_the_bound_of_bytes_holds_and_never_keeps_a_model_out(shop: Shop) -> None:
    models = follow(shop, model_files.plus(1))
    session = held(models)
    with executing(models, size=100) as (executor, infer):
        running = task(infer(row(0)))
        await wait_for_async(lambda: session.began, "the run to begin")
        large = task(infer(row(1, rows=1000)))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            infer(row(9))
        session.let_go()
        await asyncio.gather(running, large)
        assert executor._waiting_size == 0


async def test_the_bound_of_bytes_sees_text(shop: Shop) -> None:
    models = follow(shop, model_files.identity("string", ["n"]))
    session = held(models)
    text = text_request("m", ["x" * 1000])
    with executing(models, size=1000) as (_, infer):
        running = task(infer(text))
        await wait_for_async(lambda: session.began, "the run to begin")
        waiting = task(infer(text))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            infer(text)
        session.let_go()
        await asyncio.gather(running, waiting)


async def test_models_take_turns_at_the_threads(shop: Shop) -> None:
    shop.publish("m", model_files.plus(1))
    shop.publish("other", model_files.plus(1))
    models = shop.follow("m", "other")
    session = held(models)
    finished: list[str] = []
    with executing(models) as (_, infer):

        async def ask(request: pb.ModelInferRequest) -> None:
            await infer(request)
            finished.append(request.model_name)

        asked = [asyncio.ensure_future(ask(row(0))) for _ in range(4)]
        await wait_for_async(lambda: session.began, "the run to begin")
        asked.append(asyncio.ensure_future(ask(raw_request("other", x=np.ones((1, 4), np.float32)))))
        await asyncio.sleep(0)
        session.let_go()
        await asyncio.gather(*asked)
    assert finished.index("other") <= 2


# --- those who leave ------------------------------------------------------------------------------


async def test_work_whose_deadline_passed_is_not_done(shop: Shop) -> None:
    models = follow(shop, model_files.plus(1))
    for inline_ns in (ALWAYS_INLINE, NEVER_INLINE):
        with executing(models, inline_ns=inline_ns) as (_, infer), pytest.raises(DeadlineExceededError):
            infer(row(0), Within(0))
    assert (of(models).runs, of(models).expired) == (0, 2)


async def test_a_deadline_that_passes_in_the_queue_ends_the_wait(shop: Shop) -> None:
    models = follow(shop, model_files.plus(1))
    session = held(models)
    with executing(models) as (executor, infer):
        running = task(infer(row(0)))
        await wait_for_async(lambda: session.began, "the run to begin")
        late = task(infer(row(0), Within(0.02)))
        with pytest.raises(DeadlineExceededError, match="before model 'm' was run"):
            await late
        assert executor.waiting("m") == 0
        session.let_go()
        await running
    assert (len(session.began), of(models).runs, of(models).expired) == (1, 1, 1)


async def test_a_timeout_in_the_request_is_a_deadline_for_its_run(shop: Shop) -> None:
    models = follow(shop, model_files.plus(1))
    session = held(models)
    hurried = row(0)
    hurried.parameters["timeout"].int64_param = 20_000
    with executing(models) as (_, infer):
        running = task(infer(row(0)))
        await wait_for_async(lambda: session.began, "the run to begin")
        with pytest.raises(DeadlineExceededError):
            await infer(hurried, Within(DEADLINE))
        session.let_go()
        await running
        patient = row(0)
        patient.parameters["timeout"].int64_param = int(DEADLINE * 1e6)
        assert float_output(await infer(patient))[0, 0] == 1


async def test_a_fault_of_ours_reaches_all_who_share_the_run(shop: Shop) -> None:
    models = follow(shop, model_files.plus(1))

    class Broken:
        def run(self, *_arguments: object) -> None:
            raise TypeError("ours")

    current(models).session = Broken()  # type: ignore[assignment]
    with executing(models, m=BatchPolicy(64)) as (_, infer):
        asked = [infer(row(number)) for number in range(3)]
        found = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in found] == [TypeError] * 3


async def test_a_caller_who_leaves_frees_his_place_at_once(shop: Shop) -> None:
    models = follow(shop, model_files.plus(1))
    session = held(models)
    with executing(models, requests=1) as (executor, infer):
        running = task(infer(row(0)))
        await wait_for_async(lambda: session.began, "the run to begin")
        waiting = task(infer(row(0)))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            infer(row(0))
        waiting.cancel()
        await asyncio.wait([waiting])
        await asyncio.sleep(0)
        assert executor.waiting("m") == 0
        next_one = task(infer(row(5)))
        session.let_go()
        assert float_output(await next_one)[0, 0] == 6
        await running
    assert (len(session.began), of(models).cancelled, of(models).pending) == (2, 1, 0)


async def test_a_run_ends_early_when_all_its_callers_have_left(shop: Shop, tmp_path: Path) -> None:
    models = follow(shop, model_files.plus(1))
    session = endless(models, tmp_path)
    with executing(models, m=BatchPolicy(64)) as (executor, infer):
        leaving = [task(infer(row(model_files.ENDLESS + number * 1e6))) for number in range(2)]
        await wait_for_async(lambda: session.began, "the run to begin")
        for each in leaving:
            each.cancel()
        await asyncio.wait(leaving)
        await wait_for_async(lambda: not executor._running, "the end of a run that nobody waits for")
    assert of(models).cancelled == 2


async def test_one_caller_who_leaves_does_not_end_the_run_of_others(shop: Shop) -> None:
    models = follow(shop, model_files.plus(1))
    current(models).joining_proven = True
    session = held(models)
    with executing(models, m=BatchPolicy(64)) as (_, infer):
        pair = [task(infer(row(number))) for number in range(2)]
        await wait_for_async(lambda: session.began, "the run to begin")
        pair[0].cancel()
        await asyncio.wait([pair[0]])
        session.let_go()
        assert float_output(await pair[1])[0, 0] == 2
    assert session.began == [2]


async def test_closing_tells_those_who_wait_and_ends_those_who_run(shop: Shop, tmp_path: Path) -> None:
    models = follow(shop, model_files.plus(1))
    session = endless(models, tmp_path)
    with executing(models) as (executor, infer):
        asked = [task(infer(row(model_files.ENDLESS))) for _ in range(5)]
        await wait_for_async(lambda: session.began, "the run to begin")
        executor.close()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(each, NotReadyError) for each in found)
        with pytest.raises(NotReadyError, match="stopping"):
            infer(row(0))


# --- provenance -----------------------------------------------------------------------------------


async def test_an_awaited_answer_says_where_it_comes_from(shop: Shop) -> None:
    models = follow(shop, model_files.plus(1))
    said: list[Provenance] = []

    class Listening:
        def seconds_left(self) -> float | None:
            return None

        def answered_by(self, provenance: Provenance) -> None:
            said.append(provenance)

    call: Call = Listening()
    with executing(models) as (_, infer):
        await infer(row(0), call)
    assert said == [current(models).provenance]


def test_a_stopped_run_says_so(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    file.write_bytes(model_files.plus(1))
    session, stop = OnnxSession(file), RunStop(callers=2)
    feeds = {"x": np.ones((1, 4), np.float32)}
    stop.leave()
    assert session.run(feeds, None, stop)["y"][0, 0] == 2
    stop.leave()
    assert stop.ended
    with pytest.raises(ValueError, match="terminate"):
        session.run(feeds, None, stop)
