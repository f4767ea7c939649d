"""Tells the log and the observers what a follower did."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import structlog

from ferryline.model_runtime.follower import rules
from ferryline.model_runtime.memory import release_free_memory
from ferryline.model_runtime.served import ServedModel
from ferryline.registry.documents import utc_now

LONG_FAILING = 10
"""From so many failures in a row on, about three minutes of them, each is logged as an error."""


class FollowerObserver:
    """What a consumer may want to know of; called on the follower's thread, and does nothing by itself."""

    def swapped(self, served: ServedModel, seconds: float) -> None:
        """`served` serves; it took `seconds` from when its generation was seen."""

    def refused(self, refusal: rules.Refusal) -> None:
        """A candidate was refused; the last good version goes on."""

    def failed(self, reason: str) -> None:
        """Something transient went wrong; it is tried again."""

    def expired(self, fresh_until: datetime) -> None:
        """Nobody vouched for the channel's freshness since `fresh_until`; what serves goes on."""

    def trimmed(self) -> None:
        """Another follower took the room of versions that were warm; called on that one's thread."""

    def polled(self) -> None:
        """The channel was read: what serves is as new as the channel was then, or on its way to be."""


class Announcer:
    """Tells what came of each action; an observer's fault is logged and harms nobody else.

    Args:
        log: where it is written.
        observer: the first observer; None for none yet.

    Attributes:
        observers: who is told.
    """

    def __init__(
        self, log: structlog.typing.FilteringBoundLogger, observer: FollowerObserver | None = None
    ) -> None:
        self._log = log
        self.observers = [observer] if observer is not None else []
        self._told_expiry: datetime | None = None

    def announce(
        self,
        action: rules.Action,
        event: rules.Event,
        state: rules.State,
        served: ServedModel | None,
        seconds: float,
    ) -> None:
        """Tell what performing `action` led to.

        Args:
            action: what was performed.
            event: what came of it.
            state: where the follower stands now.
            served: what serves now.
            seconds: how long the last swap took.
        """
        match action, event:
            case (rules.Swap(), rules.Passed()) | (rules.FallBack(), rules.FellBack()) if served:
                self._swapped(served, seconds)
            case _, rules.Failed(reason):
                self._failed(reason, state.failures, serves=served is not None)
            case rules.Refuse(refusal), rules.Woke():
                self._refused(refusal)
            case rules.Poll(), rules.NothingNew() | rules.Found():
                self._tell(lambda observer: observer.polled())
            case _:
                pass

    def trimmed(self) -> None:
        """Another follower took the room of versions that were warm."""
        self._tell(lambda observer: observer.trimmed())

    def expiry(self, fresh_until: datetime | None) -> None:
        """Tell once that nobody vouched for the channel's freshness since `fresh_until`, if that is over."""
        if fresh_until is None or fresh_until == self._told_expiry or not is_over(fresh_until):
            return
        self._told_expiry = fresh_until
        self._log.warning(
            "nobody vouches for the channel's freshness any more", fresh_until=fresh_until.isoformat()
        )
        self._tell(lambda observer: observer.expired(fresh_until))

    def _swapped(self, served: ServedModel, seconds: float) -> None:
        self._log.info(
            "serving", version=served.version, generation=served.generation, seconds=round(seconds, 3)
        )
        self._tell(lambda observer: observer.swapped(served, seconds))
        release_free_memory()  # only now: until they were told, observers may hold what was dropped

    def _refused(self, refusal: rules.Refusal) -> None:
        self._log.error(
            "candidate refused",
            version=refusal.target.version,
            generation=refusal.target.generation,
            gate=refusal.gate,
            reason=refusal.reason,
        )
        self._tell(lambda observer: observer.refused(refusal))
        release_free_memory()

    def _failed(self, reason: str, failures: int, *, serves: bool) -> None:
        tell = self._log.error if failures >= LONG_FAILING else self._log.warning
        goes_on = "the last good version goes on" if serves else "nothing serves yet"
        tell(goes_on, reason=reason, failures_in_a_row=failures)
        self._tell(lambda observer: observer.failed(reason))

    def _tell(self, call: Callable[[FollowerObserver], None]) -> None:
        for observer in self.observers:
            try:
                call(observer)
            except Exception:  # noqa: BLE001 - an observer's fault must not keep a model from serving
                self._log.exception("an observer failed")


def is_over(moment: datetime | None) -> bool:
    """Whether `moment` has passed; what is None never does."""
    return moment is not None and moment < utc_now()
