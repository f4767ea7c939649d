"""What supervisor and workers agree on, without a process: frames, rounds, briefings, sums, restarts."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client import Counter as PrometheusCounter

from ferryline.grpc_server.counters import VersionCounters
from ferryline.grpc_server.workers import restarts, rounds
from ferryline.grpc_server.workers.briefing import Briefing
from ferryline.grpc_server.workers.counting import Relayed
from ferryline.grpc_server.workers.framing import LONGEST, FrameError, Unframer, framed
from ferryline.grpc_server.workers.messages import (
    TO_SUPERVISOR,
    TO_WORKER,
    Complete,
    Counted,
    Done,
    Followed,
    Left,
    Offer,
    Prepare,
    Refused,
    Release,
    Told,
    ToWorker,
    Warm,
    decode,
    encode,
)
from ferryline.grpc_server.workers.rounds import Agreed, Deadly, Objected, Objection, Round
from ferryline.grpc_server.workers.rows import FIELDS, counters_of, row_of
from ferryline.grpc_server.workers.sums import Joining, Sums
from ferryline.registry.documents import (
    Blob,
    ChannelEntry,
    Manifest,
    Operation,
    ServedModelReport,
    TensorSpec,
)

NOW = datetime(2026, 1, 2, tzinfo=UTC)
DIGEST = "sha256:" + "0" * 64


def entry(version: int = 1) -> ChannelEntry:
    return ChannelEntry(
        model="m", channel="production", generation=version, version=version, blob_digest=DIGEST,
        manifest_digest=DIGEST, operation=Operation.PROMOTE, actor="a", at=NOW, op_id="o", previous=None,
    )  # fmt: skip


def manifest(version: int = 1) -> Manifest:
    spec = TensorSpec(name="x", dtype="float32", shape=(-1, 4))
    blob = Blob(digest=DIGEST, size=1)
    return Manifest(
        model="m", version=version, blob=blob, inputs=(spec,), outputs=(spec,), created_at=NOW, actor="a",
        op_id="o", opset=17, ir_version=10,
    )  # fmt: skip


def prepare(session: int) -> Prepare:
    return Prepare(round=session, entry=entry(session), manifest=manifest(session), path="/nowhere")


def offer(*sessions: int, number: int = 99) -> Offer:
    warm = tuple(Warm(session=session, entry=entry(session), since=NOW) for session in sessions)
    return Offer(round=number, model="m", channel="production", warm=warm, seconds=0.1)


FOLLOWED = Followed(model="m", channel="production", need="SERVES")
TOLD = Told(
    report=ServedModelReport(model="m", channel="production", phase="serving"), tried=True, failing_since=None
)


# --- frames and messages ------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=200)), st.data())
def test_messages_come_out_as_they_went_in_however_they_are_cut(
    payloads: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(framed(payload) for payload in payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *cuts, len(stream)]
    unframer = Unframer()
    pieces = (stream[start:end] for start, end in itertools.pairwise(edges))
    assert [payload for piece in pieces for payload in unframer.feed(piece)] == payloads


def test_a_message_that_would_be_too_long_is_not_waited_for() -> None:
    with pytest.raises(FrameError, match="longer than"):
        list(Unframer().feed((LONGEST + 1).to_bytes(4, "big")))


@pytest.mark.parametrize("message", [prepare(1), offer(2, 1), FOLLOWED, TOLD, Complete(), Release(session=1)])
def test_what_a_supervisor_says_is_what_a_worker_hears(message: ToWorker) -> None:
    assert decode(TO_WORKER, encode(message)) == message


def test_what_a_worker_says_is_what_a_supervisor_hears() -> None:
    counted = Counted(
        round=1, counts={"m:production": {7: (1, 2)}}, metrics="x", cpu_seconds=1.5, resident_bytes=1
    )
    for message in (counted, Done(round=1), Refused(round=1, gate="load", reason="r", remedy="s")):
        assert decode(TO_SUPERVISOR, encode(message)) == message


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"kind":"drain"}', b'{"kind":"done","round":1,"more":2}'])
def test_what_is_no_message_of_a_worker_is_an_error(payload: bytes) -> None:
    with pytest.raises(FrameError):
        decode(TO_SUPERVISOR, payload)


# --- rounds -------------------------------------------------------------------------------------------

WORKERS = frozenset({1, 2, 3})
OBJECTION = Objection("no", "load")

events = st.lists(st.tuples(st.sampled_from(["agreed", "objected", "lost"]), st.integers(1, 4)), max_size=12)


def played(said: list[tuple[str, int]]) -> Round:
    state = rounds.asked(WORKERS)
    for what, worker in said:
        match what:
            case "agreed":
                state = rounds.agreed(state, worker)
            case "objected":
                state = rounds.objected(state, worker, OBJECTION)
            case _:
                state = rounds.lost(state, worker)
    return state


@given(events)
def test_a_version_serves_only_if_every_worker_that_is_left_can_serve_it(said: list[tuple[str, int]]) -> None:
    state = played(said)
    assert state.waiting | state.agreed | state.lost <= WORKERS
    assert not (state.agreed & state.lost)
    if not state.over:
        assert state.waiting
        with pytest.raises(ValueError, match="have not answered"):
            rounds.verdict(state)
        return
    if isinstance(rounds.verdict(state), Agreed):
        first = {worker: what for what, worker in reversed(said)}
        assert state.objection is None
        assert all(first[worker] == "agreed" for worker in state.agreed)
        assert state.agreed | state.lost == WORKERS
        assert len(state.lost) <= rounds.MOST_LOST


@given(events)
def test_nobody_is_waited_for_once_all_have_answered_or_are_gone(said: list[tuple[str, int]]) -> None:
    everyone = [*said, *(("lost", worker) for worker in WORKERS)]
    assert played(everyone).over
    assert isinstance(rounds.verdict(played(everyone)), Objected | Deadly)


def test_one_death_is_an_accident_and_two_are_the_versions_fault() -> None:
    one = played([("agreed", 1), ("lost", 2), ("agreed", 3)])
    assert rounds.verdict(one) == Agreed()
    assert rounds.verdict(played([("agreed", 1), ("lost", 2), ("lost", 3)])) == Deadly(2)
    assert rounds.verdict(rounds.asked([])) == Deadly(0)
    assert rounds.verdict(played([("objected", 1)])) == Objected(OBJECTION), "the others need not be heard"


# --- what a new worker is told ------------------------------------------------------------------------


def told(*messages: ToWorker) -> Briefing:
    briefing = Briefing()
    for message in messages:
        briefing.remember(message)
    return briefing


def test_a_new_worker_is_told_what_holds_and_nothing_else() -> None:
    briefing = told(
        FOLLOWED, prepare(1), offer(1), TOLD, prepare(2), offer(2, 1), prepare(3), Release(session=1),
        Complete(),
    )  # fmt: skip
    assert list(briefing.messages()) == [FOLLOWED, TOLD, prepare(2), prepare(3), offer(2), Complete()]
    assert briefing.served() == {2}


def test_a_canary_is_served_too() -> None:
    both = offer(2, 1).model_copy(update={"canary": 1})
    assert told(FOLLOWED, prepare(1), prepare(2), both).served() == {1, 2}


def test_a_channel_that_is_left_is_not_told_of() -> None:
    briefing = told(
        FOLLOWED, prepare(1), offer(1), TOLD, Left(model="m", channel="production"), TOLD, offer(1)
    )
    assert list(briefing.messages()) == [prepare(1)]
    assert briefing.served() == set()


# --- sums ---------------------------------------------------------------------------------------------

steps = st.lists(
    st.one_of(
        st.tuples(st.just("counts"), st.integers(1, 3), st.sampled_from("ab"), st.integers(0, 9)),
        st.tuples(st.just("dies"), st.integers(1, 3), st.just(""), st.just(0)),
    ),
    max_size=30,
)


@given(steps)
def test_sums_are_what_was_counted_and_never_go_back(taken: list[tuple[str, int, str, int]]) -> None:
    sums: Sums[str, int] = Sums([Joining.SUM, Joining.NOW, Joining.LATEST])
    living: dict[int, Counter[str]] = {}
    expected: Counter[str] = Counter()
    lives = Counter[int]()
    for what, slot, key, more in taken:
        worker = slot + 10 * lives[slot]
        if what == "dies":
            sums.gone(worker)
            living.pop(slot, None)
            lives[slot] += 1
            continue
        counts = living.setdefault(slot, Counter())
        counts[key] += more
        expected[key] += more
        sums.told(worker, {key: (counts[key], more, counts[key])})
        assert sums.row(key)[0] == expected[key]
    assert {key: sums.row(key)[0] for key in sums} == {key: expected[key] for key in sums}
    assert set(sums) == {key for what, _, key, _ in taken if what == "counts"}


def test_what_waits_in_a_dead_worker_waits_no_more() -> None:
    sums: Sums[str, int] = Sums([Joining.SUM, Joining.NOW, Joining.LATEST])
    sums.told(1, {"a": (5, 3, 70)})
    sums.told(2, {"a": (6, 4, 60)})
    assert sums.row("a") == (11, 7, 70)
    sums.gone(1)
    assert sums.row("a") == (11, 4, 70)


def test_a_worker_that_forgot_and_began_anew_takes_nothing_away() -> None:
    sums: Sums[str, int] = Sums([Joining.SUM])
    sums.told(1, {"a": (5,)})
    sums.told(1, {"a": (2,)})
    assert sums.row("a") == (7,)


def test_a_row_holds_all_counters() -> None:
    counters = VersionCounters(**{name: number for number, name in enumerate(FIELDS, start=1)})
    assert counters_of(row_of(counters)) == counters


def metrics_text(count: float, gauge: float, soonest: float) -> str:
    registry = CollectorRegistry()
    PrometheusCounter("asked", "Text", ["who"], registry=registry).labels("a b\n").inc(count)
    Gauge("fault", "Text", registry=registry).set(gauge)
    Gauge("ferry_certificate_not_after_seconds", "Text", registry=registry).set(soonest)
    Histogram("took", "Text", buckets=(1, 2), registry=registry).observe(count)
    return generate_latest(registry).decode()


def test_metrics_of_workers_are_joined_by_their_kind() -> None:
    relayed = Relayed()
    relayed.told(1, metrics_text(1, 0, 500))
    relayed.told(2, metrics_text(2, 1, 400))
    samples = {(s.name, s.labels.get("le")): s.value for m in relayed.metrics() for s in m.samples}
    assert samples["asked_total", None] == 3
    assert samples["fault", None] == 1
    assert samples["ferry_certificate_not_after_seconds", None] == 400
    assert (samples["took_bucket", "1.0"], samples["took_bucket", "2.0"], samples["took_sum", None]) == (
        1,
        2,
        3,
    )
    relayed.gone(2)
    samples = {(s.name, s.labels.get("le")): s.value for m in relayed.metrics() for s in m.samples}
    assert (samples["asked_total", None], samples["fault", None]) == (3, 0)
    labels = [s.labels for m in relayed.metrics() for s in m.samples if s.name == "asked_total"]
    assert labels == [{"who": "a b\n"}]


# --- restarts -----------------------------------------------------------------------------------------


def after(*moments: float) -> restarts.Deaths:
    deaths = restarts.Deaths()
    for moment in moments:
        deaths = restarts.died(deaths, moment)
    return deaths


def test_the_first_death_costs_no_pause_and_each_further_one_a_longer_one() -> None:
    pauses = [after(*range(count)).pause for count in range(1, 5)]
    assert pauses == [0.0, 0.25, 0.5, 1.0]


@given(st.lists(st.floats(0, 1000), max_size=20).map(sorted))
def test_the_server_gives_up_after_five_deaths_within_a_minute(moments: list[float]) -> None:
    recent = [moment for moment in moments if moments[-1] - moment < restarts.SPAN]
    assert after(*moments).too_many == (len(recent) >= restarts.MOST_DEATHS)


# --- what a supervisor is made of ---------------------------------------------------------------------


def test_a_supervisor_is_without_what_only_workers_need() -> None:
    heavy = {"grpc", "onnxruntime", "onnx", "numpy", "google.protobuf", "aiohttp"}
    program = (
        f"import sys, ferryline.grpc_server.workers.supervisor; print(*sorted({heavy!r} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []
