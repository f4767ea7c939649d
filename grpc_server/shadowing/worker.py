"""The one thread that runs requests again and compares, for all shadows of the process."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Sequence
from time import thread_time_ns

import structlog

from ferryline.grpc_server.shadowing.comparison import Failure, compare
from ferryline.grpc_server.shadowing.sampling import Sample, Shadow
from ferryline.grpc_server.shadowing.telling import MinuteLog
from ferryline.model_runtime.session import OnnxSession, RunStop

PAUSE = 0.02
"""Seconds between two looks when nothing waits; to be woken would cost the event loop more than all else."""
NICENESS = 10

log = structlog.get_logger(__name__)


class ShadowWorker:
    """Takes from the shadows' backlogs in turn, from `start` to `stop`.

    Args:
        shadows: whose requests.
    """

    def __init__(self, shadows: Sequence[Shadow]) -> None:
        self._shadows = tuple(shadows)
        self._minutes = MinuteLog(self._shadows)
        self._stopping = threading.Event()
        self._stop = RunStop()
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """Stop; a run under way ends early, and what waits is forgotten."""
        self._stopping.set()
        self._stop.leave()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def turn(self) -> bool:
        """One request of each shadow that has one; whether any had."""
        found = [sample for shadow in self._shadows if (sample := shadow.backlog.take()) is not None]
        for sample in found:
            self._examine(sample)
        return bool(found)

    def _work(self) -> None:
        _step_back()
        while not self._stopping.is_set():
            if not self.turn():
                self._stopping.wait(PAUSE)
            self._minutes.tell_if_due()
        self._minutes.tell()

    def _examine(self, sample: Sample) -> None:
        session = sample.session()
        if session is None:
            sample.pair.outdated += 1
            return
        try:
            examine(sample, session, self._stop)
        except Exception:  # whatever it is, the next one may be fine
            sample.pair.failures[Failure.FAULT] += 1
            log.exception("unexpected fault while a shadow was compared")


def examine(sample: Sample, session: OnnxSession, stop: RunStop) -> None:
    """Run a request again and count how the outputs compare.

    Args:
        sample: the request and what was answered.
        session: the shadow's.
        stop: ends the run early; such a run is not counted.
    """
    pair = sample.pair
    began = thread_time_ns()
    try:
        results = session.run(sample.feeds, tuple(sample.results), stop)
    except ValueError:
        pair.failures[Failure.RUN] += not stop.ended
        return
    pair.run_ns += thread_time_ns() - began
    pair.answer_ns += sample.answer_ns
    failed: set[Failure] = set()
    for name, left in sample.results.items():
        verdict = compare(left, results[name], measured=name in pair.measured)
        if isinstance(verdict, Failure):
            failed.add(verdict)
        else:
            pair.output(name).count(verdict)
    if failed:
        pair.failures.update(failed)
    pair.compared += 1


def _step_back() -> None:
    """Let every other thread go first, where the platform has a priority for each thread."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # then it has the priority of all others
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
