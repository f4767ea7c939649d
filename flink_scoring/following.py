"""The models a Python worker follows: one follower per model and channel, shared by its whole process.

Several operators or subtasks may live in one worker process; the first that needs a model starts to follow it
and the last that is closed stops.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from flink_scoring.binding import require_fit
from model_runtime.follower import Follower
from model_runtime.heartbeat import HeartbeatReporter, consumer_name
from model_runtime.served import ServedModel
from registry.catalogue import Registry
from registry.settings import load_settings
from streams.pipeline import Pipeline

ROLE = "flink"

_FIRST_COMPLAINT = 5.0
_LAST_COMPLAINT = 60.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Shared:
    follower: Follower
    reporter: HeartbeatReporter
    users: int = 0


class FollowedModels:
    """What this process follows; `followed_models` is the one that functions share.

    Args:
        open_registry: makes the registry of a store's URL.
    """

    def __init__(self, open_registry: Callable[[str], Registry] = Registry.open) -> None:
        self._open_registry = open_registry
        self._shared: dict[tuple[str, str, str, str], _Shared] = {}
        self._lock = threading.Lock()

    def acquire(self, store: str, pipeline: Pipeline) -> Follower:
        """The follower of the pipeline's model, started where it is the first use; to be released.

        Args:
            store: the URL of the registry's store.
            pipeline: names model and channel, and says what a model must fit.
        """
        with self._lock:
            key = _key(store, pipeline)
            shared = self._shared.get(key)
            if shared is None:
                shared = self._shared[key] = self._start(store, pipeline)
            shared.users += 1
            return shared.follower

    def release(self, store: str, pipeline: Pipeline) -> None:
        """Give back what was acquired; the last user stops the follower and takes the heartbeat away."""
        with self._lock:
            shared = self._shared[_key(store, pipeline)]
            shared.users -= 1
            if shared.users:
                return
            del self._shared[_key(store, pipeline)]
        shared.follower.stop()
        shared.reporter.stop()

    def _start(self, store: str, pipeline: Pipeline) -> _Shared:
        registry = self._open_registry(store)
        follower = Follower(
            registry,
            pipeline.model,
            pipeline.channel,
            cache=load_settings().cache,
            accept=lambda facts: require_fit(facts, pipeline),
        )
        reporter = HeartbeatReporter(registry, consumer=consumer_name(ROLE), role=ROLE, followers=[follower])
        follower.start()
        reporter.start()
        return _Shared(follower, reporter)


followed_models = FollowedModels()


def wait_for_model(follower: Follower) -> ServedModel:
    """The model that serves; before there is one, waits for it and says so, ever less often.

    Waiting holds records back in Kafka: none is lost, and none is refused for lack of a model.
    """
    served, pause, begin = follower.current, _FIRST_COMPLAINT, time.monotonic()
    while served is None:
        served = follower.wait_until_serving(pause)
        if served is None:
            log.warning(
                "no model yet, records wait in Kafka",
                model=follower.model,
                channel=follower.channel,
                seconds=round(time.monotonic() - begin),
                reason=follower.report().last_error
                or f"nothing was promoted: ferry promote {follower.model}@1",
            )
            pause = min(pause * 2, _LAST_COMPLAINT)
    return served


def _key(store: str, pipeline: Pipeline) -> tuple[str, str, str, str]:
    # the pipeline's own name too: what a model must fit differs from pipeline to pipeline
    return store, pipeline.model, pipeline.channel, pipeline.name
