"""Models whose runs take as long as a test wants: until it lets them go, or until their callers have left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ferryline.grpc_server import offering
from ferryline.grpc_server.execution.costs import RunCosts
from ferryline.grpc_server.execution.probing import probe
from ferryline.model_runtime.session import OnnxSession, RunStop
from ferryline.registry.documents import ModelFacts
from tests.grpc_server.model_files import HELD

_LOOK_SECONDS = 0.01
_SLOW_NS = 10**9


class HeldRuns:
    """The runs of models made by `model_files.held`, in this process.

    Attributes:
        begun: how many have begun.
    """

    def __init__(self) -> None:
        self.begun = 0
        self._go = threading.Event()
        self._lock = threading.Lock()

    def let_go(self) -> None:
        """Let all of them go on, and those to come."""
        self._go.set()

    def hold(self, session: OnnxSession, stop: RunStop | None) -> None:
        """Return when a run may go on; those that get a version ready have no stop, and may."""
        if stop is None or not _is_held(session):
            return
        with self._lock:
            self.begun += 1
        while not self._go.wait(_LOOK_SECONDS) and not stop.ended:
            pass


def _is_held(session: OnnxSession) -> bool:
    return bool(session._session.get_modelmeta().graph_name == HELD)


@contextmanager
def holding_runs() -> Iterator[HeldRuns]:
    """While the block lasts, runs are held."""
    held, run = HeldRuns(), OnnxSession.run

    def held_run(session: OnnxSession, feeds: Any, outputs: Any = None, stop: RunStop | None = None) -> Any:
        held.hold(session, stop)
        return run(session, feeds, outputs, stop)

    def probe_as_slow(session: OnnxSession, facts: ModelFacts, costs: RunCosts, size: int) -> None:
        if _is_held(session):
            costs.saw(size, _SLOW_NS)  # else it would be run on the event loop, and hold that
        else:
            probe(session, facts, costs, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnnxSession, "run", held_run)
        patch.setattr(offering, "probe", probe_as_slow)
        try:
            yield held
        finally:
            held.let_go()
