"""The follower at work: a thread that performs what the rules decide, and one reference that callers read."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from ferryline.model_runtime.follower import rules
from ferryline.model_runtime.follower.announcer import Announcer, FollowerObserver, is_over
from ferryline.model_runtime.follower.performer import Performer
from ferryline.model_runtime.follower.stages import Loader
from ferryline.model_runtime.follower.trusted import WHOLE_INTERVAL
from ferryline.model_runtime.identity import consumer_name
from ferryline.model_runtime.pool import WarmLimits, WarmPool, WarmShelf
from ferryline.model_runtime.served import ServedModel
from ferryline.model_runtime.supervised import SupervisedThread
from ferryline.registry.catalogue import Registry
from ferryline.registry.documents import ChannelEntry, ModelFacts, ServedModelReport
from ferryline.registry.error_kinds import ErrorKind, kind_of
from ferryline.registry.errors import FerryError, RefusedError
from ferryline.registry.names import DEFAULT_CHANNEL
from ferryline.registry.ratchet import Ratchet

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FollowerSettings:
    """How a follower behaves.

    Args:
        poll_interval: seconds between two looks for a newer generation.
        whole_interval: seconds between two looks at whether the log is still whole.
        warm: how much stays warm: what served before, and more where there is room; a follower with a shelf
            takes the number of versions from here, and the memory from there.
        swap_jitter: the longest wait, in seconds, before a new generation is taken up, so that a fleet does
            not load at once. Neither a rollback nor the first version waits.
    """

    poll_interval: float = 1.0
    whole_interval: float = WHOLE_INTERVAL
    warm: WarmLimits = field(default_factory=WarmLimits)
    swap_jitter: float = 0.0


class Follower:
    """Follows one channel of one model, from `start` to `stop`.

    `current` is one attribute read, safe on any thread: take it once for each request or batch and keep
    it until the answer is out, and every answer is by exactly one version.

    Args:
        registry: where to look.
        model: the model to follow.
        channel: its channel.
        cache: a folder for verified files; made private to this user.
        settings: how often to look.
        accept: the consumer's own demand on a contract; raises `RefusedError` where it is not met.
        observer: told of swaps, refusals and failures.
        consumer: this process's name among all consumers, for the ledger of refusals.
        state: a folder to remember the highest generation in, across restarts; None forgets it.
        loader: loads and warms what passed the gate; None for ONNX Runtime in this process.
        shelf: the memory budget, and the warm versions, that it shares with other followers of this process,
            all of them with the same loader; None for its own.

    Attributes:
        answers: gives the records or requests answered by each version; whoever answers them sets it, and the
            heartbeats tell it.
    """

    def __init__(
        self,
        registry: Registry,
        model: str,
        channel: str = DEFAULT_CHANNEL,
        *,
        cache: Path,
        settings: FollowerSettings | None = None,
        accept: Callable[[ModelFacts], None] | None = None,
        observer: FollowerObserver | None = None,
        consumer: str | None = None,
        state: Path | None = None,
        loader: Loader | None = None,
        shelf: WarmShelf | None = None,
    ) -> None:
        self.model = model
        self.channel = channel
        self.current: ServedModel | None = None
        self.swaps = 0
        self.answers: Callable[[], Mapping[int, int]] = dict
        self._log = log.bind(model=model, channel=channel)
        self._settings = settings or FollowerSettings()
        self._announcer = Announcer(self._log, observer)
        self._performer = Performer(
            registry,
            model,
            channel,
            consumer=consumer or consumer_name("consumer"),
            cache=cache,
            loader=loader or _local_loader(),
            accept=accept,
            ratchet=Ratchet(state, registry.store.url, model, channel) if state else None,
            whole_interval=self._settings.whole_interval,
            pool=WarmPool(self._settings.warm, shelf, self._announcer.trimmed),
            kept=shelf.find if shelf is not None else None,
        )
        self._due: float | None = None
        """When a new generation that waits for its jitter may be taken up; None while none does."""
        self._state = rules.State()
        self._serving = threading.Event()
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._interrupted = threading.Event()
        self._bad: tuple[int, str] | None = None
        self._thread = SupervisedThread(
            self._follow, name=f"follow-{model}-{channel}", stopping=self._stopping
        )

    # --- for callers, on any thread ---------------------------------------------------------------

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Stop following; what serves goes on serving for whoever holds it."""
        self._stopping.set()
        self._interrupted.set()
        self.wake()
        self._thread.join(timeout)
        self._performer.pool.close()

    def release(self) -> None:
        """Hold none of the versions any more; to be called after `stop`, where nobody asks this one again."""
        self.current = None
        self._announcer.observers = []
        self._performer.pool.clear()

    def wake(self) -> None:
        """Look at the channel now, not when the time between two looks is over.

        A retry keeps its pause unless something newer is there.
        """
        self._woken.set()

    def fall_back(self, generation: int, reason: str) -> None:
        """Go back to what served before `generation`, and refuse that; nothing happens if it serves no more.

        A newer generation is taken up as ever.
        """
        self._bad = (generation, reason)
        self._interrupted.set()
        self.wake()

    @property
    def expired(self) -> bool:
        """Whether nobody vouched for the channel's freshness in time."""
        return is_over(self._performer.fresh_until)

    @property
    def handled(self) -> int:
        """The highest generation that was served or refused here."""
        return self._state.handled

    @property
    def newest(self) -> ChannelEntry | None:
        """The newest entry of the channel that was seen and is trusted; what serves may be behind it."""
        return self._performer.newest

    def observe(self, observer: FollowerObserver) -> None:
        """Tell `observer` too; to be called before `start`."""
        self._announcer.observers.append(observer)

    def wait_until_serving(self, timeout: float | None = None) -> ServedModel | None:
        """What serves, as soon as something does; None when `timeout` seconds passed before."""
        self._serving.wait(timeout)
        return self.current

    @property
    def previous(self) -> ServedModel | None:
        """What served before the present session, warm and not rolled back; None where there is none."""
        return self._performer.previous

    @property
    def warm(self) -> tuple[ServedModel, ...]:
        """All that is loaded: what serves, its canary, what served before, then what served most recently."""
        return self._performer.pool.warm

    @property
    def warm_size(self) -> int:
        """Bytes of memory that all of it takes, as estimated."""
        return self._performer.pool.size

    def serving(self, version: int) -> ServedModel | None:
        """The warm model of `version`, None where it is not loaded."""
        return next((served for served in self.warm if served.version == version), None)

    def report(self) -> ServedModelReport:
        """What this follower serves and what went wrong last, for a heartbeat."""
        state, current = self._state, self.current
        canary = current.entry.canary if current else None
        refusal = state.refusal
        error = state.last_error or (f"refused by {refusal.gate}: {refusal.reason}" if refusal else None)
        fresh_until = self._performer.fresh_until
        if error is None and is_over(fresh_until):
            error = f"nobody vouched for the channel's freshness since {fresh_until:%Y-%m-%d %H:%M:%S %Z}"
        return ServedModelReport(
            model=self.model,
            channel=self.channel,
            phase=state.phase,
            generation=current.generation if current else None,
            version=current.version if current else None,
            digest=current.digest if current else None,
            entry_digest=current.entry.digest if current else None,
            since=current.since if current else None,
            last_error=error,
            failures=state.failures,
            refused_generation=refusal.target.generation if refusal else None,
            refused_gate=refusal.gate if refusal else None,
            refused_digest=refusal.target.digest if refusal else None,
            refused_entry_digest=(refusal.target.entry or None) if refusal else None,
            canary_version=canary.version if canary else None,
            canary_percent=canary.percent if canary else None,
            canary_digest=canary.blob_digest if canary else None,
            answered={str(version): count for version, count in sorted(self.answers().items())},
            polled_at=self._performer.polled_at,
            fresh_until=fresh_until,
        )

    # --- on the follower's thread -----------------------------------------------------------------

    def _follow(self) -> None:
        action: rules.Action = rules.Poll(self._state.handled)
        if self._thread.restarts:
            ended = rules.Failed("this follower's thread ended by a fault and was started again")
            self._state, action = rules.step(self._state, ended)
        while not self._stopping.is_set():
            performed, event = action, self._perform(action)
            self._state, action = rules.step(self._state, event)
            # told after the step, so that whoever asks for a report meanwhile gets the new one
            seconds = self._performer.swap_seconds
            self._announcer.announce(performed, event, self._state, self.current, seconds)
            self._announcer.expiry(self._performer.fresh_until)
        self._performer.drop_candidate()

    def _perform(self, action: rules.Action) -> rules.Event:
        try:
            return self._perform_unguarded(action)
        except Exception as error:  # noqa: BLE001 - a follower that dies in silence serves a stale model
            return self._trouble(error, action)

    def _trouble(self, error: Exception, action: rules.Action) -> rules.Event:
        kind = kind_of(error)
        if isinstance(error, RefusedError) and kind.is_final and isinstance(action, rules.RunStage):
            return rules.Rejected(error.gate, error.reason, error.remedy, self._performer.judged)
        if kind is ErrorKind.OURS:
            self._log.exception("unexpected fault while following", exc_info=error)
            return rules.Failed(f"unexpected: {error!r}")
        # what has no text fit for people is told by its class as well
        return rules.Failed(
            str(error) if isinstance(error, FerryError) else f"{type(error).__name__}: {error}"
        )

    def _perform_unguarded(self, action: rules.Action) -> rules.Event:
        match action:
            case rules.Poll():
                return self._poll()
            case rules.LookBack():
                return self._performer.look_back()
            case rules.RunStage(stage, _):
                return self._performer.run(stage)
            case rules.Swap() | rules.FallBack():
                return self._swap(action)
            case rules.Refuse(refusal):
                return self._performer.refuse(refusal)
            case rules.Rest(retry):
                self._rest(retry, has_failed=self._performer.drop_candidate())
                return rules.Woke()

    def _poll(self) -> rules.Event:
        while True:
            if regressed := self._regressed():
                return regressed
            found = self._performer.poll()
            pause = self._pause_before(found)
            if pause <= 0 or self._stopping.is_set():
                self._due = None
                return found
            # a step at a time, for something newer may come, and a rollback does not wait
            self._woken.wait(min(pause, self._settings.poll_interval))
            self._woken.clear()

    def _pause_before(self, found: rules.Event) -> float:
        """Seconds until what was found may be taken up; what replaces it meanwhile waits no longer."""
        if not isinstance(found, rules.Found) or not self._may_wait():
            return 0.0
        if self._due is None:
            self._due = time.monotonic() + random.random() * self._settings.swap_jitter  # noqa: S311 - jitter is no secret
        return self._due - time.monotonic()

    def _regressed(self) -> rules.Regressed | None:
        bad, self._bad = self._bad, None
        return None if bad is None else self._performer.regression(*bad)

    def _may_wait(self) -> bool:
        # a hold or a release over a rollback does not make that wait
        return self._settings.swap_jitter > 0 and self.current is not None and not self._performer.urgent

    def _swap(self, action: rules.Swap | rules.FallBack) -> rules.Event:
        is_new = isinstance(action, rules.Swap)
        swapped = self._performer.swap() if is_new else self._performer.fall_back()
        if isinstance(swapped, rules.Found):  # it was rolled back while it loaded
            return swapped
        self.current = self._performer.pool.current
        self.swaps += 1
        self._serving.set()
        return swapped

    def _rest(self, retry: int, *, has_failed: bool) -> None:
        if retry:
            pause = rules.retry_pause(retry, random.random())  # noqa: S311 - jitter is no secret
            self._rest_until(time.monotonic() + pause, looks=has_failed)
        else:
            # up to a tenth sooner, so that a fleet that was started at once spreads out
            self._woken.wait(self._settings.poll_interval * (1 - random.random() / 10))  # noqa: S311 - jitter is no secret
            self._woken.clear()
        if not self._stopping.is_set():
            self._interrupted.clear()

    def _rest_until(self, due: float, *, looks: bool) -> None:
        """Waits for the next try; one of a candidate that failed ends as soon as something newer is there."""
        while looks and (left := due - time.monotonic()) > 0:
            self._woken.wait(min(left, self._settings.poll_interval))
            self._woken.clear()
            if self._interrupted.is_set():
                return
            try:
                if self._performer.is_overtaken():
                    return
            except FerryError:  # the store is away as well, and is asked again when the pause is over
                looks = False
        self._interrupted.wait(max(0.0, due - time.monotonic()))


def _local_loader() -> Loader:
    # imported here: a process that has others load needs no ONNX Runtime
    from ferryline.model_runtime.follower.loading import LocalLoader

    return LocalLoader()
