"""The models a Python worker follows: one follower per model and channel, shared by its whole process.

Several operators or subtasks may live in one worker process; the first that needs a model starts to follow it
and the last that is closed stops. All that a process follows in one store is in one heartbeat.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog

from ferryline.flink_scoring.binding import require_fit
from ferryline.model_runtime.follower import Follower, FollowerObserver
from ferryline.model_runtime.follower.rules import Refusal
from ferryline.model_runtime.heartbeat import HeartbeatReporter
from ferryline.model_runtime.identity import consumer_name
from ferryline.model_runtime.served import ServedModel
from ferryline.registry.catalogue import Registry
from ferryline.registry.documents import ModelFacts
from ferryline.registry.opening import open_registry
from ferryline.registry.settings import Settings, load_settings
from ferryline.registry.signing.policy import SignaturePolicy
from ferryline.registry.signing.setup import ratchet_folder
from ferryline.streams.pipeline import Pipeline

ROLE = "flink"

_FIRST_COMPLAINT = 5.0
_LAST_COMPLAINT = 60.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A channel to follow; equal ones share a follower.

    Attributes:
        model: the model.
        channel: its channel.
        purpose: who wants it, for what a model must fit differs from one pipeline or function to the next.
        accept: raises `RefusedError` for a model that does not fit.
    """

    model: str
    channel: str
    purpose: str
    accept: Callable[[ModelFacts], None] = field(compare=False)

    @classmethod
    def by(cls, pipeline: Pipeline) -> Wanted:
        """What a pipeline scores with."""
        return cls(
            pipeline.model, pipeline.channel, pipeline.name, lambda facts: require_fit(facts, pipeline)
        )

    @classmethod
    def shadow_of(cls, pipeline: Pipeline) -> Wanted | None:
        """What a pipeline tries in the shadow of what it scores with; None where it tries nothing."""
        channel = pipeline.require_scoring().shadow
        return None if channel is None else replace(cls.by(pipeline), channel=channel)


class RefusalCount(FollowerObserver):
    """Counts the candidates that a follower refused."""

    def __init__(self) -> None:
        self.count = 0

    def refused(self, refusal: Refusal) -> None:  # noqa: ARG002 - the observer's form
        """One more."""
        self.count += 1


@dataclass(slots=True)
class _Shared:
    follower: Follower
    answers: Counter[int]
    refusals: RefusalCount
    users: int = 0


class FollowedModels:
    """What this process follows; `followed_models` is the one that functions share.

    Args:
        open_registry: makes the registry that settings name.
    """

    def __init__(self, open_registry: Callable[[Settings], Registry] = open_registry) -> None:
        self._open_registry = open_registry
        self._shared: dict[tuple[str, Wanted], _Shared] = {}
        self._reporters: dict[str, HeartbeatReporter] = {}
        self._lock = threading.Lock()

    def acquire(
        self, store: str, wanted: Wanted | Pipeline, *, signatures: SignaturePolicy | None = None
    ) -> Follower:
        """The follower of what is wanted, started where it is the first use; to be released.

        Args:
            store: the URL of the registry's store.
            wanted: names model and channel, and says what a model must fit.
            signatures: what is asked of them; None leaves it to this process's own settings.

        Raises:
            UsageError: signatures are required, and this process's settings name no keys to trust.
        """
        with self._lock:
            key = _key(store, wanted)
            shared = self._shared.get(key)
            if shared is None:
                shared = self._shared[key] = self._start(*key, signatures)
            shared.users += 1
            return shared.follower

    def answers_of(self, store: str, wanted: Wanted | Pipeline) -> Counter[int]:
        """Where the records scored by each version are counted, of what was acquired."""
        with self._lock:
            return self._shared[_key(store, wanted)].answers

    def refusals_of(self, store: str, wanted: Wanted | Pipeline) -> RefusalCount:
        """How many candidates were refused, of what was acquired."""
        with self._lock:
            return self._shared[_key(store, wanted)].refusals

    def release(self, store: str, wanted: Wanted | Pipeline) -> None:
        """Give back what was acquired; the last user stops the follower, the last of all the heartbeat."""
        with self._lock:
            key = _key(store, wanted)
            shared = self._shared[key]
            shared.users -= 1
            if shared.users:
                return
            del self._shared[key]
            is_last = not any(other == store for other, _ in self._shared)
            reporter = self._reporters.pop(store) if is_last else self._reporters[store]
        shared.follower.stop()
        reporter.forget(shared.follower)
        if is_last:
            reporter.stop()

    def _start(self, store: str, wanted: Wanted, signatures: SignaturePolicy | None) -> _Shared:
        settings = load_settings(store=store, signatures=signatures)
        registry = self._open_registry(settings)
        follower = Follower(
            registry,
            wanted.model,
            wanted.channel,
            cache=settings.cache,
            state=ratchet_folder(settings),
            accept=wanted.accept,
            consumer=consumer_name(ROLE),
        )
        answers: Counter[int] = Counter()
        follower.answers = answers.copy
        refusals = RefusalCount()
        follower.observe(refusals)
        self._report(store, registry, follower)
        follower.start()
        return _Shared(follower, answers, refusals)

    def _report(self, store: str, registry: Registry, follower: Follower) -> None:
        reporter = self._reporters.get(store)
        if reporter is not None:
            reporter.follow(follower)
            return
        reporter = HeartbeatReporter(registry, consumer=consumer_name(ROLE), role=ROLE, followers=[follower])
        self._reporters[store] = reporter
        reporter.start()


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


def _key(store: str, wanted: Wanted | Pipeline) -> tuple[str, Wanted]:
    return store, wanted if isinstance(wanted, Wanted) else Wanted.by(wanted)
