"""Models that callers load and unload while the server runs, on its event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from ferryline.grpc_server.call import Call
from ferryline.grpc_server.channels import FollowedChannel
from ferryline.grpc_server.errors import ControlRefusedError, InvalidRequestError, NotServedError, shortened
from ferryline.grpc_server.models import Models
from ferryline.model_runtime.follower import FollowerObserver
from ferryline.model_runtime.follower.rules import Phase
from ferryline.model_runtime.served import ServedModel
from ferryline.registry.errors import UsageError
from ferryline.registry.names import ModelReference

LONGEST_LOAD = 60.0
"""Seconds that a load may take where its caller sets no deadline."""

log = structlog.get_logger(__name__)


class ModelControl(Protocol):
    """Who decides which models are served."""

    @property
    def unloaded(self) -> frozenset[str]:
        """Names of models that were served and are no more."""
        ...

    async def load(self, name: str, call: Call) -> None:
        """Serve the channel `name`, written `NAME` or `NAME:CHANNEL`; return once it serves.

        Raises:
            RequestError: it is not served.
        """
        ...

    async def unload(self, name: str) -> None:
        """Serve the model `name` no more, or only one channel of it, written `NAME:CHANNEL`.

        Raises:
            RequestError: it is not served, or goes on being.
        """
        ...


class FixedModels:
    """The models are those the server was started with."""

    unloaded: frozenset[str] = frozenset()

    async def load(self, name: str, call: Call) -> None:  # noqa: ARG002 - the protocol's form
        """Refuse."""
        raise _refused()

    async def unload(self, name: str) -> None:  # noqa: ARG002 - the protocol's form
        """Refuse."""
        raise _refused()


def _refused() -> ControlRefusedError:
    # the first half is what Triton says, and what its users search for
    return ControlRefusedError(
        "explicit model load / unload is not allowed if polling is enabled; this server follows the channels "
        "it was started with: start it with --model-control explicit to load and unload models by request"
    )


@dataclass(slots=True)
class _Turns:
    """Whose turn it is to load or unload a model."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    """Who has the turn or waits for it; a lock looks free while the one it has woken does not run yet."""


class ExplicitModels:
    """Callers say which models are served.

    Args:
        models: what is served; changed here.
        follow: makes the channel for a reference and starts to follow it; the observer is told how it goes.
        leave: stops following it.
    """

    def __init__(
        self,
        models: Models,
        follow: Callable[[ModelReference, FollowerObserver], FollowedChannel],
        leave: Callable[[FollowedChannel], Awaitable[None]],
    ) -> None:
        self._models = models
        self._follow = follow
        self._leave = leave
        self._turns: dict[str, _Turns] = {}
        self.unloaded: frozenset[str] = frozenset()

    async def load(self, name: str, call: Call) -> None:
        """See `ModelControl`."""
        reference = _reference(name, "load")
        async with self._turn(reference.model):
            model = self._models.find(reference.model)
            served = model.channel(reference.channel_or_default) if model is not None else None
            if served is None:
                await self._load(reference, call)
            else:
                served.follower.wake()  # a load of what is loaded looks for something newer

    async def _load(self, reference: ModelReference, call: Call) -> None:
        news = _News(asyncio.get_running_loop())
        channel = self._follow(reference, news)
        self._models.add(channel)
        try:
            left = call.seconds_left()
            async with asyncio.timeout(LONGEST_LOAD if left is None else left):
                await news.until(lambda: channel.current is not None or _ended(channel, news))
            _require_serving(channel, reference)
        except BaseException as error:
            self._models.remove(channel)
            await asyncio.shield(self._leave(channel))
            if isinstance(error, TimeoutError):
                raise InvalidRequestError(f"failed to load {str(reference)!r}: it took too long") from error
            raise
        self.unloaded -= {reference.model}
        log.info("loaded", model=reference.model, channel=reference.channel_or_default)

    async def unload(self, name: str) -> None:
        """See `ModelControl`."""
        reference = _reference(name, "unload")
        async with self._turn(reference.model):
            model = self._models.find(reference.model)
            channels = [] if model is None else list(model.channels)
            if reference.channel is not None:
                channels = [channel for channel in channels if channel.name == reference.channel]
            if model is None or not channels:
                raise NotServedError(f"failed to unload {shortened(name)}: no such model is served here")
            if len(channels) == len(model.channels):
                self.unloaded |= {reference.model}
            for channel in channels:
                self._models.remove(channel)
            await asyncio.shield(self._leave_all(channels))
            log.info("unloaded", model=reference.model, channels=[channel.name for channel in channels])

    async def _leave_all(self, channels: Sequence[FollowedChannel]) -> None:
        await asyncio.gather(*(self._leave(channel) for channel in channels))

    @contextlib.asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        """One load or unload of a model at a time; names that nobody waits for are not kept."""
        turns = self._turns.setdefault(name, _Turns())
        turns.users += 1
        try:
            async with turns.lock:
                yield
        finally:
            turns.users -= 1
            if not turns.users:
                del self._turns[name]


class _News(FollowerObserver):
    """What a follower tells on its thread, heard on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heard = asyncio.Event()
        self.looked = False

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._heard.clear()
            await self._heard.wait()

    def swapped(self, served: ServedModel, seconds: float) -> None:  # noqa: ARG002 - the observer's form
        self._tell()

    def failed(self, reason: str) -> None:  # noqa: ARG002 - the observer's form
        self.looked = True
        self._tell()

    def polled(self) -> None:
        self.looked = True
        self._tell()

    def _tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and nobody waits
            self._loop.call_soon_threadsafe(self._heard.set)


def _require_serving(channel: FollowedChannel, reference: ModelReference) -> None:
    if channel.current is None:
        why = channel.follower.report().last_error or "nothing is promoted in its channel"
        raise InvalidRequestError(f"failed to load {str(reference)!r}: {why}")


def _ended(channel: FollowedChannel, news: _News) -> bool:
    """Whether the follower has looked, tried what there was, and serves nothing."""
    return news.looked and channel.follower.report().phase == Phase.FOLLOWING


def _reference(name: str, verb: str) -> ModelReference:
    try:
        reference = ModelReference.parse(name)
    except UsageError as error:
        raise InvalidRequestError(f"failed to {verb} {shortened(name)}: {error}") from error
    if reference.version is not None:
        raise InvalidRequestError(
            f"failed to {verb} {shortened(name)}: a server follows a channel, so name {reference.model} or "
            f"{reference.model}:CHANNEL; a request may name a version"
        )
    return reference
