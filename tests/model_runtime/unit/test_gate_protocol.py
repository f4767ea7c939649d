"""What the keeper and its children say, and what is made of it."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.model_runtime.facts import read_facts
from ferryline.model_runtime.gate import GateLimits
from ferryline.model_runtime.gate.errors import ChildLostError, GateUnavailableError, KeeperLostError
from ferryline.model_runtime.gate.exhaustion import out_of_memory
from ferryline.model_runtime.gate.handover import handed_over
from ferryline.model_runtime.gate.keeper_process import KeeperProcess
from ferryline.model_runtime.gate.losses import MOST_LOSSES, Losses
from ferryline.model_runtime.gate.protocol import (
    MAX_VERDICT,
    Ending,
    Request,
    encode_ending,
    encode_facts,
    encode_refusal,
    encode_stage,
    encode_unavailable,
    tame,
    verdict,
)
from ferryline.model_runtime.gate.spawning import keeper_environment
from ferryline.registry.error_kinds import ErrorKind, is_memory_exhaustion, kind_of
from ferryline.registry.errors import RefusedError
from tests.onnx_models import linear_classifier

REQUEST = Request(size=1000, digest="sha256:" + "0" * 64, limits=GateLimits(domains=("", "ai.onnx", "mine")))
FACTS = read_facts(linear_classifier())
DONE = Ending(code=0, signal=None, overdue=False, grown=0, stderr="", cpu_seconds=0.1)


def died(
    number: int | None = None,
    *,
    code: int | None = None,
    overdue: bool = False,
    grown: int = 0,
    stderr: str = "",
    cpu_seconds: float = 60.0,
) -> bytes:
    ending = Ending(code, number, overdue, grown, stderr, cpu_seconds)
    return encode_stage("loaded") + encode_ending(ending)


def test_a_request_comes_through() -> None:
    assert Request.decode(REQUEST.encode()) == REQUEST


def test_facts_come_through() -> None:
    answer = encode_stage("parsed") + encode_facts(FACTS) + encode_ending(DONE)
    assert verdict(answer, REQUEST) == FACTS


def test_a_refusal_comes_through() -> None:
    refusal = RefusedError("shapes", "too\nbig \x1b[31m", "Make it smaller")
    with pytest.raises(RefusedError) as caught:
        verdict(encode_refusal(refusal) + encode_ending(DONE), REQUEST)
    assert (caught.value.gate, caught.value.reason) == ("shapes", "too big [31m")


@pytest.mark.parametrize(
    ("answer", "gate", "text"),
    [
        (died(signal.SIGSEGV), "crash", "SIGSEGV when it was loaded"),
        (died(signal.SIGFPE), "crash", "SIGFPE"),
        (died(99), "crash", "signal 99"),
        (died(signal.SIGABRT, stderr="terminate called … what(): std::bad_alloc"), "memory", "gave up"),
        (died(signal.SIGSEGV, grown=2**30), "memory", "gave up"),
        (died(signal.SIGKILL, overdue=True), "time", "60 s"),
        (died(signal.SIGKILL, overdue=True, cpu_seconds=30.0), "time", "60 s"),
        (died(signal.SIGXCPU), "time", "processor"),
        (died(code=70, stderr="KeyError: 'x'\n"), "crash", "status 70 when it was loaded: KeyError"),
        (died(code=70, stderr="MemoryError\n"), "memory", "gave up"),
        (died(code=0), "crash", "no meaning"),
    ],
)
def test_what_a_child_did_becomes_a_gate(answer: bytes, gate: str, text: str) -> None:
    with pytest.raises(RefusedError, match=text) as caught:
        verdict(answer, REQUEST)
    assert caught.value.gate == gate


@pytest.mark.parametrize(
    ("answer", "gate", "text"),
    [
        (died(signal.SIGKILL), "memory", "the system ended its process when it was loaded"),
        (died(signal.SIGKILL, grown=2**30), "memory", "the system ended"),
        (died(signal.SIGTERM), "crash", "ended by SIGTERM"),
        (died(signal.SIGKILL, overdue=True, cpu_seconds=1.0), "time", "got only 1.0 s of processor time"),
        (died(code=70, stderr="OSError: [Errno 24] Too many open files\n"), "crash", "Too many open files"),
        (died(code=70, stderr="…: system error number 24\n"), "crash", "number 24"),
    ],
)
def test_what_the_machine_did_is_no_verdict(answer: bytes, gate: str, text: str) -> None:
    with pytest.raises(ChildLostError, match=text) as caught:
        verdict(answer, REQUEST)
    assert caught.value.gate == gate
    assert kind_of(caught.value) is ErrorKind.TRANSIENT


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (encode_unavailable("no process is free"), "no process is free"),
        (encode_ending(Ending(70, None, False, 0, "", 0.1)), "before it began to judge"),
    ],
)
def test_what_never_began_is_no_loss_of_the_candidates(answer: bytes, text: str) -> None:
    with pytest.raises(GateUnavailableError, match=text) as caught:
        verdict(answer, REQUEST)
    assert not isinstance(caught.value, ChildLostError)
    assert kind_of(caught.value) is ErrorKind.TRANSIENT


def test_what_the_machine_does_each_time_refuses_a_model_in_the_end() -> None:
    losses, loss = Losses(), ChildLostError("the system ended its process", "memory")
    for _ in range(MOST_LOSSES - 1):
        losses.count("a", loss)
    losses.count("b", loss)
    with pytest.raises(RefusedError, match=f"for the {MOST_LOSSES}th time in a row") as caught:
        losses.count("a", loss)
    assert caught.value.gate == "memory"
    losses.count("a", loss)  # another generation of the same file begins anew


def test_a_verdict_ends_a_row_of_losses() -> None:
    losses, loss = Losses(), ChildLostError("the system ended its process", "memory")
    for _ in range(3 * MOST_LOSSES):
        losses.count("a", loss)
        losses.forget("a")


def test_a_child_that_dies_after_its_verdict_is_not_believed() -> None:
    with pytest.raises(RefusedError, match="crash"):
        verdict(encode_facts(FACTS) + died(signal.SIGSEGV), REQUEST)


def test_a_child_that_says_how_it_ended_is_not_believed() -> None:
    with pytest.raises(RefusedError, match="crash"):
        verdict(encode_facts(FACTS) + encode_ending(DONE) + died(signal.SIGSEGV), REQUEST)


def test_an_answer_without_an_end_is_no_verdict() -> None:
    with pytest.raises(KeeperLostError):
        verdict(encode_facts(FACTS), REQUEST)


KEYS = st.sampled_from(["facts", "refusal", "stage", "ending", "gate", "code"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
)


@given(st.lists(st.binary(max_size=40) | JSON.map(orjson.dumps), max_size=6))
def test_whatever_a_child_says_is_a_verdict(lines: list[bytes]) -> None:
    """Followed by the keeper's own line, as the child is: facts, or a refusal, and no other error."""
    for ending in (b"", encode_ending(DONE), died(signal.SIGSEGV)):
        try:
            facts = verdict(b"\n".join(lines) + ending, REQUEST)
        except (RefusedError, GateUnavailableError):
            continue
        assert ending == encode_ending(DONE)
        assert facts.outputs is not None


@given(st.text())
def test_tame_text_is_one_short_printable_line(text: str) -> None:
    tamed = tame(text * 50)
    assert len(tamed) <= 602
    assert not any(ord(char) < 32 or ord(char) == 127 for char in tamed)
    tamed.encode()


def test_lone_surrogates_are_tamed() -> None:
    assert tame("a\ud800b") == "a?b"


def test_facts_of_any_length_are_not_told() -> None:
    spec = FACTS.outputs[0].model_copy(update={"name": "y" * MAX_VERDICT})
    with pytest.raises(RefusedError, match="bytes to tell") as caught:
        encode_facts(FACTS.model_copy(update={"outputs": (spec,)}))
    assert caught.value.gate == "contract"


@pytest.mark.parametrize(
    "text",
    [
        "std::bad_alloc",
        "bad allocation",
        "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 4294967296",
        "MemoryError",
    ],
)
def test_want_of_memory_is_recognised(text: str) -> None:
    assert is_memory_exhaustion(text)
    assert out_of_memory(text).gate == "memory"


def test_other_faults_are_no_want_of_memory() -> None:
    assert not is_memory_exhaustion("Invalid rank for input: x")


def test_what_is_handed_over_cannot_be_changed() -> None:
    with handed_over(b"candidate", "test") as file:
        assert os.read(file, 100) == b"candidate"
        with pytest.raises(PermissionError):
            os.write(file, b"other")
        with pytest.raises(PermissionError):
            os.ftruncate(file, 0)


def test_a_keeper_knows_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("FERRY_SIGNING_KEY", "/key")
    environment = keeper_environment()
    assert not {name for name in environment if name.startswith(("AWS", "FERRY"))}
    assert "" not in environment["PYTHONPATH"].split(os.pathsep)


def test_a_candidate_whose_golden_rows_the_system_dropped_is_not_judged_without_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer, their_answer = os.pipe()
    received = (Request(1, "sha256:" + "0" * 64, GateLimits()).encode(), [their_answer, os.dup(answer)])
    monkeypatch.setattr(socket, "recv_fds", lambda *_: (*received, socket.MSG_CTRUNC, None))
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("it is judged"))
    control: Any = None
    assert KeeperProcess(control, 1.0)._take_request()
    assert b"could not be started" in os.read(answer, 4096)
    os.close(answer)
