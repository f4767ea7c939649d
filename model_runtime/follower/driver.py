"""The follower at work: a thread that performs what the rules decide, and one reference that callers read."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog

from model_runtime.cache import BlobCache
from model_runtime.follower import rules
from model_runtime.follower.stages import Candidate, Stages
from model_runtime.memory import release_free_memory
from model_runtime.served import ServedModel
from registry.catalogue import Registry
from registry.documents import ChannelEntry, ModelFacts, ServedModelReport, utc_now
from registry.errors import FerryError, RefusedError
from registry.names import DEFAULT_CHANNEL

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FollowerSettings:
    """How a follower behaves.

    Args:
        poll_interval: seconds between two looks for a newer generation.
    """

    poll_interval: float = 1.0


class FollowerObserver:
    """What a consumer may want to know of; called on the follower's thread, and does nothing by itself."""

    def swapped(self, served: ServedModel, seconds: float) -> None:
        """`served` serves; it took `seconds` from when its generation was seen."""

    def refused(self, refusal: rules.Refusal) -> None:
        """A candidate was refused; the last good version goes on."""

    def failed(self, reason: str) -> None:
        """Something transient went wrong; it is tried again."""


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
    ) -> None:
        self.model = model
        self.channel = channel
        self.current: ServedModel | None = None
        self.previous: ServedModel | None = None
        self.swaps = 0
        self._log = log.bind(model=model, channel=channel)
        self._channel = registry.channel(model, channel)
        self._settings = settings or FollowerSettings()
        self._stages = Stages(registry, BlobCache(cache), accept)
        self._observers = [observer or FollowerObserver()]
        self._state = rules.State()
        self._handled: ChannelEntry | None = None
        self._candidate: Candidate | None = None
        self._may_break_contract = False
        self._found_at = 0.0
        self._swap_seconds = 0.0
        self._serving = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name=f"follow-{model}-{channel}", daemon=True)

    # --- for callers, on any thread ---------------------------------------------------------------

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Stop following; what serves goes on serving for whoever holds it."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def observe(self, observer: FollowerObserver) -> None:
        """Tell `observer` too; to be called before `start`."""
        self._observers.append(observer)

    def wait_until_serving(self, timeout: float | None = None) -> ServedModel | None:
        """What serves, as soon as something does; None when `timeout` seconds passed before."""
        self._serving.wait(timeout)
        return self.current

    def serving(self, version: int) -> ServedModel | None:
        """The warm model of `version`: the one that serves or the one before it; else None."""
        for served in (self.current, self.previous):
            if served is not None and served.version == version:
                return served
        return None

    def report(self) -> ServedModelReport:
        """What this follower serves and what went wrong last, for a heartbeat."""
        state, current = self._state, self.current
        refusal = state.refusal
        error = state.last_error or (f"refused by {refusal.gate}: {refusal.reason}" if refusal else None)
        return ServedModelReport(
            model=self.model,
            channel=self.channel,
            phase=state.phase,
            generation=current.generation if current else None,
            version=current.version if current else None,
            digest=current.digest if current else None,
            since=current.since if current else None,
            last_error=error,
            refused_generation=refusal.target.generation if refusal else None,
            refused_gate=refusal.gate if refusal else None,
        )

    # --- on the follower's thread -----------------------------------------------------------------

    def _follow(self) -> None:
        action: rules.Action = rules.Poll(0)
        while not self._stopping.is_set():
            performed, event = action, self._perform(action)
            self._state, action = rules.step(self._state, event)
            # told after the step, so that whoever asks for a report meanwhile gets the new one
            self._announce(performed, event)

    def _perform(self, action: rules.Action) -> rules.Event:
        try:
            return self._perform_unguarded(action)
        except RefusedError as error:
            return rules.Rejected(error.gate, error.reason)
        except FerryError as error:
            return rules.Failed(str(error))
        except Exception as error:  # noqa: BLE001 - a follower that dies in silence serves a stale model
            self._log.exception("unexpected fault while following")
            return rules.Failed(f"unexpected: {error!r}")

    def _perform_unguarded(self, action: rules.Action) -> rules.Event:
        match action:
            case rules.Poll():
                return self._poll()
            case rules.RunStage(stage, _):
                incumbent = self.current.manifest if self.current else None
                self._stages.run(stage, self._require_candidate(), incumbent)
                return rules.Passed()
            case rules.Swap(target, kept):
                self._swap(self._kept(target) if kept else self._warmed())
                return rules.Passed()
            case rules.Refuse(refusal):
                self._handled, self._candidate = self._require_candidate().entry, None
                self._tell(lambda observer: observer.refused(refusal))
                release_free_memory()
                return rules.Woke()
            case rules.Rest(retry):
                self._candidate = None
                self._stopping.wait(self._pause(retry))
                return rules.Woke()

    def _poll(self) -> rules.Event:
        unseen = self._unseen()
        if not unseen:
            return rules.NothingNew()
        newest = unseen[-1]
        # an allowed change stays allowed for what comes after it, until something of it serves here
        self._may_break_contract |= any(entry.contract_change for entry in unseen)
        self._candidate = Candidate(newest, may_break_contract=self._may_break_contract)
        self._found_at = time.monotonic()
        return rules.Found(rules.Target(newest.generation, newest.version, newest.blob_digest))

    def _unseen(self) -> list[ChannelEntry]:
        if self._handled is not None:
            return self._channel.newer_than(self._handled)
        head = self._channel.head()
        return [] if head is None else [head]

    def _kept(self, target: rules.Target) -> ServedModel:
        kept = self.serving(target.version)
        if kept is None:
            raise ValueError(f"no session of version {target.version} is kept")
        return ServedModel(kept.manifest, self._require_candidate().entry, kept.session, self._since(kept))

    def _since(self, kept: ServedModel) -> datetime:
        return kept.since if kept is self.current else utc_now()

    def _warmed(self) -> ServedModel:
        candidate = self._require_candidate()
        return ServedModel(
            candidate.require_manifest(), candidate.entry, candidate.require_session(), utc_now()
        )

    def _swap(self, served: ServedModel) -> None:
        replaced = self.current
        self.current = served
        if replaced is not None and replaced.session is not served.session:
            self.previous = replaced
        self.swaps += 1
        self._handled, self._candidate = served.entry, None
        self._may_break_contract = False
        self._serving.set()
        self._swap_seconds = time.monotonic() - self._found_at
        release_free_memory()

    def _require_candidate(self) -> Candidate:
        if self._candidate is None:
            raise ValueError("there is no candidate")
        return self._candidate

    def _pause(self, retry: int) -> float:
        if retry:
            return rules.retry_pause(retry, random.random())  # noqa: S311 - jitter is no secret
        return self._settings.poll_interval

    def _announce(self, action: rules.Action, event: rules.Event) -> None:
        match action, event:
            case rules.Swap(), rules.Passed() if served := self.current:
                seconds = self._swap_seconds
                self._log.info(
                    "serving", version=served.version, generation=served.generation, seconds=round(seconds, 3)
                )
                self._tell(lambda observer: observer.swapped(served, seconds))
            case _, rules.Failed(reason):
                self._log.warning("the last good version goes on", reason=reason)
                self._tell(lambda observer: observer.failed(reason))
            case _, rules.Rejected(gate, reason):
                self._log.error("candidate refused, the last good version goes on", gate=gate, reason=reason)
            case _:
                pass

    def _tell(self, call: Callable[[FollowerObserver], None]) -> None:
        for observer in self._observers:
            try:
                call(observer)
            except Exception:  # noqa: BLE001 - an observer's fault must not keep a model from serving
                self._log.exception("an observer failed")
