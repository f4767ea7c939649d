"""Following the channels of models: started, reported to the registry, and stopped together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from ferryline.grpc_server.channels import FollowedChannel, Need
from ferryline.grpc_server.discovery import Discovery
from ferryline.grpc_server.models import ChangeListener
from ferryline.grpc_server.settings import ServerSettings
from ferryline.grpc_server.trials import TrialJudge, look_regularly
from ferryline.model_runtime.follower import Follower, FollowerObserver, FollowerSettings
from ferryline.model_runtime.follower.stages import Loader
from ferryline.model_runtime.heartbeat import HeartbeatReporter
from ferryline.model_runtime.hint_watch import FULL_READ_INTERVAL, HintWatch
from ferryline.model_runtime.identity import consumer_name
from ferryline.model_runtime.memory import release_free_memory
from ferryline.model_runtime.pool import WarmShelf
from ferryline.registry.catalogue import Registry
from ferryline.registry.names import ModelReference
from ferryline.registry.signing.setup import ratchet_folder

ROLE = "grpc"
SHADOW_ROLE = "shadow"
MOST_DIRECT = 4
"""Up to so many models are followed by a read of each channel; more are woken by the registry's hint."""

STOP_FOLLOWER = 2.0


class Following:
    """The followers of this process.

    Args:
        registry: where they look.
        settings: how often, and where they keep files.
        references: the channels to follow from the start.
        aside: channels to follow besides, whose versions requests cannot reach.
        loader: loads versions; None for this process.
        channel_of: makes what a follower's versions are offered by.

    Attributes:
        channels: what requests can reach.
        aside: what they cannot; a channel that they can is not followed once more.
    """

    def __init__(
        self,
        registry: Registry,
        settings: ServerSettings,
        references: list[ModelReference],
        aside: Sequence[ModelReference] = (),
        *,
        loader: Loader | None = None,
        channel_of: Callable[[Follower, Need], FollowedChannel] = FollowedChannel,
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._loader = loader
        self._channel_of = channel_of
        self._judges: list[TrialJudge] = []
        self._shelf = WarmShelf(settings.warm_limits().size)
        aside = [each for each in aside if not any(_are_same(each, known) for known in references)]
        self._watched = settings.server_all or len(references) + len(aside) > MOST_DIRECT
        self.channels = [self._made(reference, watched=self._watched) for reference in references]
        self.aside = [channel_of(self._follower(each, watched=self._watched), Need.NOTHING) for each in aside]
        self._reporter = _reporter(registry, ROLE)
        self._aside_reporter = _reporter(registry, SHADOW_ROLE)
        self._watch: HintWatch | None = None
        self._discovery: Discovery | None = None
        self._looking: asyncio.Future[None] | None = None
        self._notify: Callable[[], object] = lambda: None

    def start(
        self,
        changed: Callable[[], object],
        appeared: Callable[[Sequence[FollowedChannel]], object] | None = None,
    ) -> None:
        """Begin to follow; to be called on the event loop.

        Args:
            changed: called there after each change.
            appeared: called there with the channels that were found, if the settings say to look for them;
                the first time with all that there are at the start.
        """
        loop = asyncio.get_running_loop()
        self._notify = lambda: loop.call_soon_threadsafe(changed)
        changed()
        for channel in self.channels:
            self._begin(channel)
        self._reporter.start()
        self._begin_aside()
        self._looking = asyncio.ensure_future(look_regularly(lambda: self._judges))
        if appeared is not None and self._settings.server_all:
            self._discovery = self._discovering(loop, appeared)
        if self._watched:
            followers = [channel.follower for channel in (*self.channels, *self.aside)]
            self._watch = HintWatch(
                self._registry.store,
                followers,
                interval=self._settings.server_poll_seconds,
                heard=None if self._discovery is None else self._discovery.hinted,
            )
            self._watch.start()
        if self._discovery is not None:
            self._discovery.start()

    def _discovering(
        self, loop: asyncio.AbstractEventLoop, appeared: Callable[[Sequence[FollowedChannel]], object]
    ) -> Discovery:
        name, needs = self._settings.server_all_channel, iter((Need.TRIED,))

        def found(models: Sequence[str]) -> None:
            need = next(needs, Need.NOTHING)
            references = [ModelReference(model, channel=name) for model in models]
            channels = [self._made(reference, watched=True, need=need) for reference in references]
            with contextlib.suppress(RuntimeError):  # the loop is gone, and nobody is served
                loop.call_soon_threadsafe(begin, channels)

        def begin(channels: Sequence[FollowedChannel]) -> None:
            self.channels.extend(channels)
            appeared(channels)
            for channel in channels:
                self._begin(channel)
            self._notify()

        known = [channel.model for channel in self.channels if channel.name == name]
        return Discovery(self._registry, name, known, found)

    def follow(self, reference: ModelReference, observer: FollowerObserver) -> FollowedChannel:
        """Follow one more channel; the observer is told of what happens to it."""
        channel = self._made(reference, watched=False)
        channel.follower.observe(observer)
        self.channels.append(channel)
        self._begin(channel)
        return channel

    async def leave(self, channel: FollowedChannel) -> None:
        """Follow a channel no more; whatever request holds a version of it keeps that."""
        self.channels.remove(channel)
        self._judges = [judge for judge in self._judges if judge.channel is not channel]
        self._reporter.forget(channel.follower)
        if self._watch is not None:
            self._watch.forget(channel.follower)
        await asyncio.to_thread(_let_go, channel)
        self._notify()

    async def stop(self) -> None:
        """Stop all of it."""
        if self._looking is not None:
            self._looking.cancel()
        if self._discovery is not None:
            await asyncio.to_thread(self._discovery.stop)
        if self._watch is not None:
            await asyncio.to_thread(self._watch.stop)
        followers = [channel.follower for channel in (*self.channels, *self.aside)]
        stops = [asyncio.to_thread(follower.stop, STOP_FOLLOWER) for follower in followers]
        reporters = (self._reporter, *([self._aside_reporter] if self.aside else ()))
        await asyncio.gather(*stops, *(asyncio.to_thread(reporter.stop) for reporter in reporters))

    def _begin(self, channel: FollowedChannel) -> None:
        channel.follower.observe(ChangeListener(self._notify))
        self._reporter.follow(channel.follower)
        if self._watch is not None:
            self._watch.follow(channel.follower)
        channel.follower.start()

    def _begin_aside(self) -> None:
        for channel in self.aside:
            self._aside_reporter.follow(channel.follower)
            channel.follower.start()
        if self.aside:
            self._aside_reporter.start()

    def _made(self, reference: ModelReference, *, watched: bool, need: Need = Need.SERVES) -> FollowedChannel:
        channel = self._channel_of(self._follower(reference, watched=watched), need)
        if (policy := self._settings.trials()) is not None:
            self._judges = [*self._judges, TrialJudge(channel, policy)]
        return channel

    def _follower(self, reference: ModelReference, *, watched: bool) -> Follower:
        interval = FULL_READ_INTERVAL if watched else self._settings.server_poll_seconds
        return Follower(
            self._registry,
            reference.model,
            reference.channel_or_default,
            cache=self._settings.cache,
            state=ratchet_folder(self._settings),
            settings=FollowerSettings(
                poll_interval=interval,
                warm=self._settings.warm_limits(),
                swap_jitter=self._settings.server_swap_jitter_seconds,
            ),
            consumer=consumer_name(ROLE),
            shelf=self._shelf,
            loader=self._loader,
        )


def _let_go(channel: FollowedChannel) -> None:
    """Stop following it and free what it served; both take time that requests must not wait for."""
    channel.follower.stop(STOP_FOLLOWER)
    channel.close()
    channel.follower.release()
    release_free_memory()


def _reporter(registry: Registry, role: str) -> HeartbeatReporter:
    return HeartbeatReporter(registry, consumer=consumer_name(role), role=role, followers=())


def _are_same(left: ModelReference, right: ModelReference) -> bool:
    return (left.model, left.channel_or_default) == (right.model, right.channel_or_default)
