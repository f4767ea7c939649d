"""The program's side of the keeper: started at the first candidate, replaced when it dies."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from ferryline.model_runtime.gate.errors import ChildLostError, GateUnavailableError, KeeperLostError
from ferryline.model_runtime.gate.losses import Losses
from ferryline.model_runtime.gate.protocol import CRASH, MAX_ANSWER, Request, verdict
from ferryline.model_runtime.gate.spawning import RunningKeeper, start_keeper
from ferryline.registry.documents import ModelFacts
from ferryline.registry.errors import RefusedError

IDLE_SECONDS = 300.0
PARALLEL = 2

_GRACE = 15.0  # seconds the keeper may be late, on a machine that is very busy
_SEND_SECONDS = 10.0
_END_SECONDS = 2.0


class GateKeeper:
    """Has candidates judged in children of a helper process; safe to use from many threads.

    Args:
        idle_seconds: after so long without a candidate the helper ends, and its memory is free; the next
            candidate starts another.
        parallel: candidates judged at the same time; others wait.
    """

    def __init__(self, *, idle_seconds: float = IDLE_SECONDS, parallel: int = PARALLEL) -> None:
        self._idle_seconds = idle_seconds
        self._parallel = parallel
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(parallel)
        self._running: RunningKeeper | None = None
        self._end: Callable[[], Any] = _nothing
        self._losses = Losses()
        _keepers.add(self)

    @property
    def pid(self) -> int | None:
        """The helper's process, None while there is none."""
        running = self._running
        return running.process.pid if running is not None and running.process.poll() is None else None

    def judge(self, request: Request, candidate: int, golden: int | None = None) -> ModelFacts:
        """Have an open file judged.

        Args:
            request: what it is, and the limits for it.
            candidate: the open file.
            golden: an open file of golden rows.

        Raises:
            RefusedError: a gate refuses it, or the machine ended its judgement at so many tries in a row.
            ChildLostError: the machine ended its judgement.
            GateUnavailableError: the helper does not start or does not answer.
        """
        key = f"{request.digest} {request.limits.digest}"
        with self._places:
            try:
                facts = self._judge_twice(request, candidate, golden)
            except ChildLostError as error:
                self._losses.count(key, error)
                raise
            except RefusedError:
                self._losses.forget(key)
                raise
            self._losses.forget(key)
            return facts

    def _judge_twice(self, request: Request, candidate: int, golden: int | None) -> ModelFacts:
        with contextlib.suppress(KeeperLostError):  # it was idle for too long just now, or someone ended it
            return self._judge(request, candidate, golden)
        try:
            return self._judge(request, candidate, golden)
        except KeeperLostError as error:
            raise ChildLostError("the process that judges models ended twice meanwhile", CRASH) from error

    def stop(self) -> None:
        """End the helper; the next candidate starts another."""
        with self._lock:
            self._end()
            self._running, self._end = None, _nothing

    def _judge(self, request: Request, candidate: int, golden: int | None) -> ModelFacts:
        running = self._ensure()
        answer, their_answer = os.pipe()
        try:
            try:
                _send(running.control, request.encode(), _files(their_answer, candidate, golden))
            finally:
                os.close(their_answer)
            deadline = time.monotonic() + request.limits.wall_seconds + _GRACE
            return verdict(_read(answer, deadline), request)
        except KeeperLostError:
            self._discard(running)
            raise
        except TimeoutError as error:
            self._discard(running)
            raise GateUnavailableError(
                "the load gate's helper does not answer; another is started"
            ) from error
        finally:
            os.close(answer)

    def _ensure(self) -> RunningKeeper:
        with self._lock:
            if self._running is None or self._running.process.poll() is not None:
                self._end()
                running = start_keeper(self._idle_seconds)
                running.control.settimeout(_SEND_SECONDS)
                self._running = running
                self._end = weakref.finalize(self, _end, running)
                reaper = threading.Thread(target=running.process.wait, name="load-gate-reaper", daemon=True)
                with contextlib.suppress(RuntimeError):  # no thread is free; then the next candidate reaps it
                    reaper.start()
            return self._running

    def _discard(self, lost: RunningKeeper) -> None:
        """Never ask this one again, though it may look alive for a moment; others may have replaced it."""
        with self._lock:
            if self._running is lost:
                self._end()
                self._running, self._end = None, _nothing

    def forget(self) -> None:
        """After a fork: the helper belongs to the parent, and this process starts its own."""
        inherited = self._running
        if isinstance(self._end, weakref.finalize):
            self._end.detach()
        # another thread may have held these, and there are no other threads here
        self._lock, self._places = threading.Lock(), threading.BoundedSemaphore(self._parallel)
        self._running, self._end, self._losses = None, _nothing, Losses()
        if inherited is not None:
            inherited.control.close()  # else the helper would outlive the parent for as long as we live
            inherited.process.returncode = 0  # not ours to wait for


_keepers: weakref.WeakSet[GateKeeper] = weakref.WeakSet()


@functools.cache
def shared_keeper() -> GateKeeper:
    """The one keeper of this program."""
    return GateKeeper()


def _forget_all() -> None:
    for keeper in list(_keepers):
        keeper.forget()


os.register_at_fork(after_in_child=_forget_all)


def _files(answer: int, candidate: int, golden: int | None) -> list[int]:
    return [answer, candidate] if golden is None else [answer, candidate, golden]


def _send(control: socket.socket, packet: bytes, files: Sequence[int]) -> None:
    try:
        socket.send_fds(control, [packet], files)
    except TimeoutError:
        raise
    except OSError as error:
        raise KeeperLostError("the load gate's helper is gone") from error


def _read(answer: int, deadline: float) -> bytes:
    """All of the answer.

    Raises:
        TimeoutError: it is not complete at `deadline`.
        RefusedError: it has no end.
    """
    poll = select.poll()
    poll.register(answer, select.POLLIN)
    said = bytearray()
    while len(said) <= MAX_ANSWER:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError
        chunk = os.read(answer, 65536)
        if not chunk:
            return bytes(said)
        said += chunk
    raise RefusedError(CRASH, "its process answers without end", "Never serve this file")


def _end(running: RunningKeeper) -> None:
    running.control.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        running.process.wait(_END_SECONDS)
        return
    running.process.kill()
    running.process.wait()


def _nothing() -> None:
    pass
