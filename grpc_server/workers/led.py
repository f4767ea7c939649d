"""A worker's models: loaded, offered and dropped as the supervisor says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import structlog

from ferryline.grpc_server.channels import FollowedChannel, Need
from ferryline.grpc_server.counters import VersionCounters
from ferryline.grpc_server.models import Models
from ferryline.grpc_server.offering import Offering
from ferryline.grpc_server.workers.messages import (
    Complete,
    Done,
    Failed,
    Followed,
    Left,
    Offer,
    Prepare,
    Refused,
    Release,
    Told,
    ToSupervisor,
    ToWorker,
    Warm,
)
from ferryline.model_runtime.follower import Follower, FollowerObserver
from ferryline.model_runtime.follower.loading import LocalLoader
from ferryline.model_runtime.follower.rules import Phase
from ferryline.model_runtime.memory import release_free_memory
from ferryline.model_runtime.served import Canary, ServedModel
from ferryline.registry.canary import CanarySplit
from ferryline.registry.documents import ServedModelReport, utc_now
from ferryline.registry.errors import FerryError, RefusedError
from ferryline.registry.names import ModelReference

log = structlog.get_logger(__name__)


class ToldFollower:
    """Stands for the supervisor's follower of a channel: as much of it as answers need."""

    def __init__(self, model: str, channel: str) -> None:
        self.model = model
        self.channel = channel
        self.answers: Callable[[], Mapping[int, int]] = dict
        self.warm: tuple[ServedModel, ...] = ()
        self.told = ServedModelReport(model=model, channel=channel, phase=Phase.FOLLOWING)

    @property
    def expired(self) -> bool:
        """Whether nobody vouched for the channel's freshness in time."""
        return self.told.fresh_until is not None and self.told.fresh_until < utc_now()

    def observe(self, observer: FollowerObserver) -> None:
        """Nothing: who is led is told by messages."""

    def report(self) -> ServedModelReport:
        """What the supervisor said last."""
        return self.told


class LedChannel(FollowedChannel):
    """A channel that the supervisor follows."""

    def __init__(self, reference: ModelReference, need: Need = Need.SERVES) -> None:
        self.told_of = ToldFollower(reference.model, reference.channel_or_default)
        super().__init__(cast("Follower", self.told_of), need)
        self.awaited: Offer | None = None
        """An offer that waits until its sessions are loaded."""

    def told(self, message: Told) -> None:
        """Hear how following goes."""
        self.told_of.told = message.report
        self._tried = self._tried or message.tried
        if message.failing_since is not None:
            self._failure = (message.report.last_error or "", message.failing_since)

    def offered(self, warm: tuple[ServedModel, ...], seconds: float) -> None:
        """Serve the first of these, and keep the others."""
        self.told_of.warm = warm
        self.swapped(warm[0], seconds)

    def close(self) -> None:
        """Offer nothing from now on, and hold no session."""
        self.told_of.warm = ()
        super().close()

    def released(self, offering: Offering) -> None:
        """Offer a session no more."""
        left = tuple(served for served in self.told_of.warm if served.session is not offering.session)
        if len(left) < len(self.told_of.warm):
            self.told_of.warm = left
            self.trimmed()


@dataclass(slots=True)
class _Session:
    """A version that is loaded, or on its way.

    Attributes:
        offering: what requests need of it, once it is there. The thread that loads sets and drops it: once
            nobody offers it any more, that is where the session ends.
        ended: whether its load has ended, well or not.
    """

    prepare: Prepare
    offering: Offering | None = None
    ended: bool = False


class LedModels:
    """Keeps `models` as the supervisor wants them; to be used on the event loop.

    Args:
        models: what is served; changed here.
        channels: what will be followed from the start, also what requests cannot reach.
        say: tells the supervisor.
        changed: called when something else serves, or is said of what does.
    """

    def __init__(
        self,
        models: Models,
        channels: Iterable[LedChannel],
        say: Callable[[ToSupervisor], object],
        changed: Callable[[], object],
    ) -> None:
        self._models = models
        self._channels = {(channel.model, channel.name): channel for channel in channels}
        self._say = say
        self._changed = changed
        self._sessions: dict[int, _Session] = {}
        self._loader = LocalLoader()
        # one at a time, as in a process that follows one channel: what is loaded takes the time of requests
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")

    def hear(self, message: ToWorker) -> None:
        """Do what the supervisor says, if it is about models."""
        match message:
            case Prepare():
                self._prepare(message)
            case Offer():
                self._offer(message)
            case Release():
                self._release(message.session)
            case _:
                self._hear_of_channels(message)

    def close(self) -> None:
        """Load nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _hear_of_channels(self, message: ToWorker) -> None:
        match message:
            case Followed():
                self._follow(message)
            case Left():
                self._leave(message)
            case Told():
                self._told(message)
            case Complete():
                self._models.complete = True
            case _:
                return
        self._changed()

    def _follow(self, message: Followed) -> None:
        if (message.model, message.channel) in self._channels:
            return
        reference = ModelReference(message.model, channel=message.channel)
        channel = self._channels[message.model, message.channel] = LedChannel(reference, Need[message.need])
        self._models.add(channel)

    def _leave(self, message: Left) -> None:
        channel = self._channels.pop((message.model, message.channel), None)
        if channel is not None:
            self._models.remove(channel)
            channel.close()

    def _told(self, message: Told) -> None:
        channel = self._channels.get((message.report.model, message.report.channel))
        if channel is not None:
            channel.told(message)

    # --- sessions -----------------------------------------------------------------------------------

    def _prepare(self, message: Prepare) -> None:
        session = self._sessions[message.round] = _Session(message)
        loading = asyncio.get_running_loop().run_in_executor(self._thread, self._load, session)
        loading.add_done_callback(lambda done: self._loaded(session, done))

    def _load(self, wanted: _Session) -> None:
        """On a thread: all that takes time before a version can serve."""
        message = wanted.prepare
        if message.round not in self._sessions:
            raise FerryError("it is not wanted any more")
        session = self._loader.load(message.entry, message.manifest, Path(message.path))
        self._loader.warm(session, message.manifest)
        served = ServedModel(message.manifest, message.entry, session, utc_now())
        wanted.offering = Offering(served, VersionCounters())

    def _loaded(self, session: _Session, done: asyncio.Future[None]) -> None:
        if done.cancelled():
            return
        session.ended = True
        number, error = session.prepare.round, done.exception()
        for channel in list(self._channels.values()):
            self._serve_awaited(channel)
        self._say(Done(round=number) if error is None else _trouble(number, error))

    def _release(self, number: int) -> None:
        session = self._sessions.pop(number, None)
        if session is None:
            return
        if session.offering is not None:
            for channel in self._channels.values():
                channel.released(session.offering)
        self._thread.submit(_free, session)  # after its load, if that is still under way

    def _offer(self, message: Offer) -> None:
        channel = self._channels.get((message.model, message.channel))
        if channel is not None:
            channel.awaited = message
            self._serve_awaited(channel)

    def _serve_awaited(self, channel: LedChannel) -> None:
        message = channel.awaited
        if message is None or not all(self._has_ended(warm.session) for warm in message.warm):
            return
        channel.awaited = None
        served = self._served(message)
        if served:
            channel.offered(served, message.seconds)
            self._changed()
        self._say(Done(round=message.round))

    def _has_ended(self, number: int) -> bool:
        session = self._sessions.get(number)
        return session is None or session.ended

    def _served(self, message: Offer) -> tuple[ServedModel, ...]:
        """What an offer names, as far as it could be loaded here; nothing if that lacks what serves."""
        channel = self._channels[message.model, message.channel]
        found: dict[int, ServedModel] = {}
        for warm in message.warm:
            session = self._sessions.get(warm.session)
            if session is not None and session.offering is not None:
                channel.prepare(session.offering)
                found[warm.session] = _one(session.offering, warm)
        first = found.pop(message.warm[0].session, None)
        if first is None:
            return ()
        if message.canary is not None and message.canary in found:
            first = _with_canary(first, found[message.canary])
        return (first, *found.values())


def _free(session: _Session) -> None:
    """On the thread that loads, since requests would wait for what it takes to drop a large session."""
    session.offering = None
    release_free_memory()


def _one(offering: Offering, warm: Warm) -> ServedModel:
    return ServedModel(offering.served.manifest, warm.entry, offering.session, warm.since)


def _with_canary(served: ServedModel, canary: ServedModel) -> ServedModel:
    entry = served.entry
    if entry.canary is None:
        return served
    split = CanarySplit(f"{entry.model}:{entry.channel}", entry.canary.version, entry.canary.percent)
    return replace(served, canary=Canary(canary, split))


def _trouble(number: int, error: BaseException) -> Refused | Failed:
    if isinstance(error, RefusedError):
        return Refused(round=number, gate=error.gate, reason=error.reason, remedy=error.remedy)
    if not isinstance(error, FerryError):
        log.error("unexpected fault while loading", exc_info=error)
        return Failed(round=number, reason=f"unexpected: {error!r}")
    return Failed(round=number, reason=str(error))
