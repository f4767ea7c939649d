"""A fault of the moment never refuses a good version: it is tried again, counted and shown."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ferryline.model_runtime.follower import Follower, rules
from ferryline.model_runtime.follower.loading import LocalLoader
from ferryline.model_runtime.gate.errors import ChildLostError
from ferryline.model_runtime.gate.protocol import Request
from ferryline.model_runtime.golden import check_golden_rows, warm_up
from ferryline.model_runtime.session import Array, ExhaustedError, OnnxSession
from ferryline.model_runtime.supervised import SupervisedThread
from ferryline.registry import Registry
from ferryline.registry.documents import ChannelEntry, Manifest, ModelFacts
from ferryline.registry.errors import RefusedError
from tests.faulty_store import HidingStore, Wrapper
from tests.model_runtime.following import FAST, Setting, Witness
from tests.onnx_models import golden_rows, inspect_model, linear_classifier
from tests.support.unit_tier import GateInProcess
from tests.support.waiting import DEADLINE


def follower_of(
    setting: Setting, folder: Path, *, loader: LocalLoader | None = None, hides: str = ""
) -> tuple[Follower, Witness, HidingStore]:
    store, witness = HidingStore(setting.memory, hides, times=0), Witness()
    follower = Follower(
        Registry(store), "digits", cache=folder / "own", settings=FAST, observer=witness, loader=loader
    )
    return follower, witness, store


@pytest.mark.parametrize("part", ["/versions/0000000002", "blobs/"])
@pytest.mark.parametrize("times", [1, 4])
def test_an_object_that_is_hidden_for_a_moment_is_asked_for_again(
    tmp_path: Path, part: str, times: int
) -> None:
    setting = Setting(tmp_path)
    follower, witness, store = follower_of(setting, tmp_path, hides=part)
    for winner in (0, 1):
        setting.publish(winner)
    setting.registry.promote("digits", 1)
    follower.start()
    witness.wait(lambda seen: seen.swaps == [(1, 1)])
    store.times = times
    setting.registry.promote("digits", 2)
    witness.wait(lambda seen: seen.swaps == [(1, 1), (2, 2)])
    follower.stop()
    assert len(witness.failures) == times
    assert witness.refusals == []


class Stumbling(LocalLoader):
    """Fails at the first load of version 2."""

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = error

    def load(self, entry: ChannelEntry, manifest: Manifest, path: Path) -> OnnxSession:
        error = self.error
        if manifest.version == 2 and error is not None:
            self.error = None
            raise error
        return super().load(entry, manifest, path)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        MemoryError(),
        RuntimeError("can't start new thread"),
        KeyError("a fault of this program"),
        ExhaustedError("std::bad_alloc"),
    ],
    ids=repr,
)
def test_whatever_keeps_a_version_from_loading_once_costs_a_try(tmp_path: Path, error: Exception) -> None:
    setting = Setting(tmp_path)
    follower, witness, _ = follower_of(setting, tmp_path, loader=Stumbling(error))
    for winner in (0, 1):
        setting.publish(winner)
    setting.registry.promote("digits", 1)
    follower.start()
    witness.wait(lambda seen: seen.swaps == [(1, 1)])
    setting.registry.promote("digits", 2)
    witness.wait(lambda seen: seen.swaps == [(1, 1), (2, 2)])
    follower.stop()
    (told,) = witness.failures
    assert type(error).__name__ in told or str(error) in told
    assert witness.refusals == []


def test_a_judgement_that_the_machine_ended_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, judge = [ChildLostError("the system ended its process", "memory")], GateInProcess.judge

    def unlucky(keeper: GateInProcess, request: Request, *files: int) -> ModelFacts:
        if losses:
            raise losses.pop()
        return judge(keeper, request, *files)

    monkeypatch.setattr(GateInProcess, "judge", unlucky)
    setting = Setting(tmp_path)
    setting.follower.start()
    setting.serve(0)
    setting.follower.stop()
    assert ["the system ended its process" in told for told in setting.witness.failures] == [True]
    assert setting.witness.refusals == []


def test_what_fails_again_and_again_is_counted_and_shown(tmp_path: Path) -> None:
    setting = Setting(tmp_path)
    setting.registry.promote("digits", setting.publish(0))
    follower, witness, store = follower_of(setting, tmp_path, hides="/versions/0000000002")
    follower.start()
    witness.wait(lambda seen: seen.swaps == [(1, 1)])
    store.times = 10**9
    setting.registry.promote("digits", setting.publish(1))
    witness.wait(lambda seen: len(seen.failures) > 5)
    report = follower.report()
    follower.stop()
    assert report.failures >= 5
    assert "the store does not show the manifest of digits@2" in (report.last_error or "")
    assert (report.generation, report.refused_generation) == (1, None)


def test_what_cannot_be_had_does_not_keep_what_is_newer_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "FIRST_RETRY", 3_600.0)
    monkeypatch.setattr(rules, "LAST_RETRY", 3_600.0)
    setting = Setting(tmp_path)
    setting.registry.promote("digits", setting.publish(0))
    follower, witness, store = follower_of(setting, tmp_path, hides="/versions/0000000002")
    follower.start()
    witness.wait(lambda seen: seen.swaps == [(1, 1)])
    store.times = 10**9
    setting.registry.promote("digits", setting.publish(1))
    witness.wait(lambda seen: len(seen.failures) == 1)
    setting.registry.rollback("digits")
    witness.wait(lambda seen: seen.swaps == [(1, 1), (3, 1)])
    follower.stop()
    assert len(witness.failures) == 1


# --- native faults ----------------------------------------------------------------------------------------


class Native(Exception):  # noqa: N818 - as ONNX Runtime's own are named
    """As ONNX Runtime raises them."""


def session(monkeypatch: pytest.MonkeyPatch, folder: Path, error: Exception | None) -> OnnxSession:
    path = folder / "model.onnx"
    path.write_bytes(linear_classifier())
    if error is not None:

        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("onnxruntime.InferenceSession", fail)
    return OnnxSession(path)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        Native("[ONNXRuntimeError] : 1 : FAIL : Load model from m.onnx failed:system error number 24"),
    ],
    ids=repr,
)
def test_want_of_resources_at_a_load_refuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with pytest.raises(ExhaustedError):
        session(monkeypatch, tmp_path, error)


def test_a_file_that_cannot_be_opened_for_now_refuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr(Path, "open", full)
    (tmp_path / "empty").touch()
    with pytest.raises(ExhaustedError, match="Too many open files"):
        OnnxSession(tmp_path / "empty")


def test_what_onnx_runtime_says_of_the_file_refuses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RefusedError) as caught:
        session(monkeypatch, tmp_path, Native("INVALID_GRAPH : the graph is no graph"))
    assert caught.value.gate == "load"


class Failing:
    """A session whose runs fail."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def run(self, *_: object) -> dict[str, Array]:
        text = f"the model could not be run on these inputs: {self._error}"
        raise ValueError(text) from self._error


CHECKS: dict[str, Callable[..., object]] = {
    "golden rows": lambda session, facts: check_golden_rows(session, facts, golden_rows()),
    "zeros": warm_up,
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    "error",
    [RuntimeError("std::bad_alloc"), MemoryError(), MemoryError("Unable to allocate 2 GiB for an array")],
    ids=repr,
)
def test_want_of_memory_at_a_run_refuses_nothing(check: str, error: Exception) -> None:
    facts, failing = inspect_model(linear_classifier()), Failing(error)
    with pytest.raises(ExhaustedError):
        CHECKS[check](failing, facts)


def test_golden_rows_that_the_model_does_not_take_refuse_it() -> None:
    with pytest.raises(RefusedError) as caught:
        check_golden_rows(
            Failing(RuntimeError("bad shape")), inspect_model(linear_classifier()), golden_rows()
        )  # type: ignore[arg-type]
    assert caught.value.gate == "golden-rows"


# --- threads that must live -------------------------------------------------------------------------------


def test_a_follower_whose_thread_ends_by_a_fault_follows_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ferryline.model_runtime.supervised.FIRST_PAUSE", 0.01)
    setting, faults = Setting(tmp_path), [ValueError("a state that cannot be")]
    step = rules.step

    def stumble(state: rules.State, event: rules.Event) -> tuple[rules.State, rules.Action]:
        if isinstance(event, rules.Found) and faults:
            raise faults.pop()
        return step(state, event)

    monkeypatch.setattr(rules, "step", stumble)
    setting.registry.promote("digits", setting.publish(0))
    setting.follower.start()
    setting.witness.wait(lambda seen: seen.swaps == [(1, 1)])
    setting.follower.stop(DEADLINE)
    assert not setting.follower._thread.is_alive()
    assert setting.follower._thread.restarts == 1


def test_a_thread_that_worked_for_long_is_started_again_as_soon_as_at_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, pauses, works = [0.0], list[float](), iter([0.0, 0.0, 86_400.0, 0.0])
    monkeypatch.setattr("ferryline.model_runtime.supervised.elapsed", lambda: now[0])

    class Stopping(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0.0)
            if len(pauses) == 4:
                self.set()
            return self.is_set()

    def work() -> None:
        now[0] += next(works)

    thread = SupervisedThread(work, name="work", stopping=Stopping())
    thread.start()
    thread.join(DEADLINE)
    assert pauses == [1.0, 2.0, 1.0, 2.0]


@pytest.mark.parametrize("fault", [None, RuntimeError("nobody thought of it"), MemoryError()])
def test_a_thread_that_must_live_is_started_again(
    monkeypatch: pytest.MonkeyPatch, fault: Exception | None
) -> None:
    monkeypatch.setattr("ferryline.model_runtime.supervised.FIRST_PAUSE", 0.001)
    stopping, enough, calls = threading.Event(), threading.Event(), list[int]()

    def work() -> None:
        calls.append(1)
        if len(calls) == 3:
            enough.set()
            stopping.wait(DEADLINE)
        elif fault is not None:
            raise fault

    thread = SupervisedThread(work, name="test", stopping=stopping)
    thread.start()
    assert enough.wait(DEADLINE)
    stopping.set()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert (len(calls), thread.restarts) == (3, 2)


class FullLedger(Wrapper):
    """Has no room for a refusal, and says so as a file system does."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if "/refusals/" in key:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.inner.put_if_absent(key, data)


def test_a_ledger_that_cannot_be_written_costs_the_record_alone(tmp_path: Path) -> None:
    setting, witness = Setting(tmp_path), Witness()
    store = FullLedger(setting.memory)
    follower = Follower(Registry(store), "digits", cache=tmp_path, settings=FAST, observer=witness)
    setting.registry.promote("digits", setting.publish(1, golden=golden_rows(winner=2)))
    follower.start()
    witness.wait(lambda seen: bool(seen.refusals))
    setting.registry.promote("digits", setting.publish(2))
    witness.wait(lambda seen: seen.swaps == [(2, 2)])
    follower.stop()
    assert witness.failures == []
