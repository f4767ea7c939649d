"""The models a Python worker follows: one follower per model and channel, shared by its whole process.

Several operators or subtasks may live in one worker process; the first that needs a model starts to follow it
and the last that is closed stops.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from flink_scoring.binding import require_fit
from model_runtime.follower import Follower
from model_runtime.heartbeat import HeartbeatReporter
from model_runtime.identity import consumer_name
from model_runtime.served import ServedModel
from registry.catalogue import Registry
from registry.opening import open_registry
from registry.settings import Settings, load_settings
from registry.signing.policy import SignaturePolicy
from registry.signing.setup import ratchet_folder
from streams.pipeline import Pipeline

ROLE = "flink"

_FIRST_COMPLAINT = 5.0
_LAST_COMPLAINT = 60.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Shared:
    follower: Follower
    reporter: HeartbeatReporter
    answers: Counter[int]
    users: int = 0


class FollowedModels:
    """What this process follows; `followed_models` is the one that functions share.

    Args:
        open_registry: makes the registry that settings name.
    """

    def __init__(self, open_registry: Callable[[Settings], Registry] = open_registry) -> None:
        self._open_registry = open_registry
        self._shared: dict[tuple[str, str, str, str], _Shared] = {}
        self._lock = threading.Lock()

    def acquire(
        self, store: str, pipeline: Pipeline, *, signatures: SignaturePolicy | None = None
    ) -> Follower:
        """The follower of the pipeline's model, started where it is the first use; to be released.

        Args:
            store: the URL of the registry's store.
            pipeline: names model and channel, and says what a model must fit.
            signatures: what is asked of them; None leaves it to this process's own settings.

        Raises:
            UsageError: signatures are required, and this process's settings name no keys to trust.
        """
        with self._lock:
            key = _key(store, pipeline)
            shared = self._shared.get(key)
            if shared is None:
                shared = self._shared[key] = self._start(store, pipeline, signatures)
            shared.users += 1
            return shared.follower

    def answers_of(self, store: str, pipeline: Pipeline) -> Counter[int]:
        """Where the records scored by each version are counted, of what was acquired."""
        with self._lock:
            return self._shared[_key(store, pipeline)].answers

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

    def _start(self, store: str, pipeline: Pipeline, signatures: SignaturePolicy | None) -> _Shared:
        settings = load_settings(store=store, signatures=signatures)
        registry = self._open_registry(settings)
        follower = Follower(
            registry,
            pipeline.model,
            pipeline.channel,
            cache=settings.cache,
            state=ratchet_folder(settings),
            accept=lambda facts: require_fit(facts, pipeline),
            consumer=consumer_name(ROLE),
        )
        reporter = HeartbeatReporter(registry, consumer=consumer_name(ROLE), role=ROLE, followers=[follower])
        answers: Counter[int] = Counter()
        follower.answers = answers.copy
        follower.start()
        reporter.start()
        return _Shared(follower, reporter, answers)


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
