"""A client that calls the server all the time, so that a swap which fails one request is seen."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ferryline.deploy.demo.tally import ConsumerTally
from ferryline.grpc_server.client import NO_RETRY, Client, InferenceError
from ferryline.registry.documents import utc_now

CALLS_PER_SECOND = 50.0


@dataclass(slots=True)
class CallTally:
    """What came of the calls."""

    answered: int = 0
    failed: int = 0
    last_failure: str = ""
    server: ConsumerTally = field(default_factory=ConsumerTally)


class Caller:
    """Asks the server for `model` at a steady rate from `start` to `stop`.

    Args:
        address: the server, as host:port.
        model: the model's name.
        rows: [n, features] float32; sent one at a time, in turn.
    """

    def __init__(self, address: str, model: str, rows: npt.NDArray[np.floating[Any]]) -> None:
        self.tally = CallTally()
        self._client = Client(address, retry=NO_RETRY)  # a failure is to be seen
        self._model = model
        self._rows = rows.astype(np.float32)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._call, name="caller", daemon=True)

    def ready(self) -> bool:
        """Whether the server answers for the model yet; not counted."""
        try:
            self._ask(0)
        except InferenceError:
            return False
        return True

    def start(self) -> None:
        """Begin to call."""
        self._thread.start()

    def stop(self) -> None:
        """Stop calling."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(10)
        self._client.close()

    def _call(self) -> None:
        turn = 0
        while not self._stopping.wait(1 / CALLS_PER_SECOND):
            turn += 1
            try:
                generation, version = self._ask(turn)
            except InferenceError as error:
                self.tally.failed += 1
                self.tally.last_failure = str(error)
                continue
            self.tally.answered += 1
            self.tally.server.saw(generation, version, utc_now())

    def _ask(self, turn: int) -> tuple[int, int]:
        row = self._rows[turn % len(self._rows)]
        by = self._client.infer(self._model, {"input": row[np.newaxis]}).model
        if by.generation is None:
            raise InferenceError("INTERNAL", "the reply does not say its generation")
        return by.generation, int(by.version)
