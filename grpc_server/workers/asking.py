"""What a worker asks its supervisor because a caller wants it: all counts, and loads and unloads."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping

from ferryline.grpc_server.call import Call
from ferryline.grpc_server.counters import VersionCounters, merged
from ferryline.grpc_server.errors import (
    ControlRefusedError,
    InvalidRequestError,
    NotReadyError,
    NotServedError,
    RequestError,
    UnsupportedError,
)
from ferryline.grpc_server.model_statistics import Counted as CountedOf
from ferryline.grpc_server.models import FollowedModel
from ferryline.grpc_server.workers.messages import (
    Answered,
    Counts,
    Load,
    Summed,
    ToSupervisor,
    Totals,
    Unload,
    Unloaded,
    Withdrawn,
)
from ferryline.grpc_server.workers.rows import counters_of

TOTALS_SECONDS = 5.0
"""How long the supervisor may take to ask all workers what they have counted."""

_ERRORS: dict[str, type[RequestError]] = {
    kind.__name__: kind
    for kind in (ControlRefusedError, InvalidRequestError, NotReadyError, NotServedError, UnsupportedError)
}

_Answer = Answered | Summed


class Asking:
    """Questions to the supervisor that wait for their answers; to be used on the event loop.

    Args:
        say: tells the supervisor.
    """

    def __init__(self, say: Callable[[ToSupervisor], object]) -> None:
        self.unloaded: frozenset[str] = frozenset()
        self._say = say
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[_Answer]] = {}

    def hear(self, message: object) -> None:
        """An answer, or what a caller of another worker did."""
        match message:
            case Answered(request=number) | Summed(request=number):
                waiting = self._waiting.get(number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case Unloaded(names=names):
                self.unloaded = frozenset(names)
            case _:
                pass

    async def totals(self) -> CountedOf:
        """What all workers have counted.

        Raises:
            NotReadyError: the supervisor does not say.
        """
        try:
            async with asyncio.timeout(TOTALS_SECONDS):
                answer = await self._answer(lambda number: Totals(request=number))
        except TimeoutError as error:
            raise NotReadyError("the workers of this server could not be asked; try again") from error
        assert isinstance(answer, Summed)  # noqa: S101 - what answers Totals
        return lambda model: _of_model(model, answer.counts)

    async def load(self, name: str, call: Call) -> None:
        """See `ModelControl`."""
        seconds = call.seconds_left()
        self._require_done(
            await self._answer(lambda number: Load(request=number, name=name, seconds=seconds))
        )

    async def unload(self, name: str) -> None:
        """See `ModelControl`."""
        self._require_done(await self._answer(lambda number: Unload(request=number, name=name)))

    async def _answer(self, question: Callable[[int], ToSupervisor]) -> _Answer:
        number = next(self._numbers)
        waiting: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        self._say(question(number))
        try:
            return await waiting
        except asyncio.CancelledError:
            self._say(Withdrawn(request=number))
            raise
        finally:
            del self._waiting[number]

    def _require_done(self, answer: _Answer) -> None:
        if isinstance(answer, Answered) and answer.error is not None:
            raise _ERRORS.get(answer.error, InvalidRequestError)(answer.text)


def _of_model(model: FollowedModel, counts: Counts) -> Mapping[int, VersionCounters]:
    return merged(
        [
            {version: counters_of(row) for version, row in counts.get(str(channel), {}).items()}
            for channel in model.channels
        ]
    )
