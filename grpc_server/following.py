"""Following the channels of models: started, reported to the registry, and stopped together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from grpc_server.models import FollowedModel, SwapListener
from grpc_server.settings import ServerSettings
from model_runtime.follower import Follower, FollowerObserver, FollowerSettings
from model_runtime.heartbeat import HeartbeatReporter
from model_runtime.hint_watch import FULL_READ_INTERVAL, HintWatch
from model_runtime.identity import consumer_name
from registry.catalogue import Registry
from registry.names import ModelReference
from registry.signing.setup import ratchet_folder

ROLE = "grpc"
MOST_DIRECT = 4
"""Up to so many models are followed by a read of each channel; more are woken by the registry's hint."""

STOP_FOLLOWER = 2.0


class Following:
    """The followers of this process.

    Args:
        registry: where they look.
        settings: how often, and where they keep files.
        references: the models to follow from the start.
    """

    def __init__(
        self, registry: Registry, settings: ServerSettings, references: list[ModelReference]
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._watched = len(references) > MOST_DIRECT
        self.models = [self._made(reference, watched=self._watched) for reference in references]
        self._reporter = HeartbeatReporter(registry, consumer=consumer_name(ROLE), role=ROLE, followers=())
        self._watch: HintWatch | None = None
        self._notify: Callable[[], object] = lambda: None

    def start(self, changed: Callable[[], object]) -> None:
        """Begin to follow; to be called on the event loop, where `changed` is called after each change."""
        loop = asyncio.get_running_loop()
        self._notify = lambda: loop.call_soon_threadsafe(changed)
        changed()
        for model in self.models:
            self._begin(model)
        self._reporter.start()
        if self._watched:
            followers = [model.follower for model in self.models]
            interval = self._settings.server_poll_seconds
            self._watch = HintWatch(self._registry.store, followers, interval=interval)
            self._watch.start()

    def follow(self, reference: ModelReference, observer: FollowerObserver) -> FollowedModel:
        """Follow one more model; the observer is told of what happens to it."""
        model = self._made(reference, watched=False)
        model.follower.observe(observer)
        self.models.append(model)
        self._begin(model)
        return model

    async def leave(self, model: FollowedModel) -> None:
        """Follow a model no more; whatever request holds its version keeps it."""
        self.models.remove(model)
        self._reporter.forget(model.follower)
        await asyncio.to_thread(model.follower.stop, STOP_FOLLOWER)
        model.close()
        self._notify()

    async def stop(self) -> None:
        """Stop all of it."""
        if self._watch is not None:
            await asyncio.to_thread(self._watch.stop)
        stops = [asyncio.to_thread(model.follower.stop, STOP_FOLLOWER) for model in self.models]
        await asyncio.gather(*stops, asyncio.to_thread(self._reporter.stop))

    def _begin(self, model: FollowedModel) -> None:
        model.follower.observe(SwapListener(self._notify))
        self._reporter.follow(model.follower)
        model.follower.start()

    def _made(self, reference: ModelReference, *, watched: bool) -> FollowedModel:
        interval = FULL_READ_INTERVAL if watched else self._settings.server_poll_seconds
        follower = Follower(
            self._registry,
            reference.model,
            reference.channel_or_default,
            cache=self._settings.cache,
            state=ratchet_folder(self._settings),
            settings=FollowerSettings(poll_interval=interval),
            consumer=consumer_name(ROLE),
        )
        return FollowedModel(follower)
