"""One channel of a model as this server follows it: what serves, and the versions that are warm beside it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import TYPE_CHECKING

from ferryline.grpc_server.counters import ModelCounters
from ferryline.grpc_server.errors import NotReadyError
from ferryline.model_runtime.follower import Follower, FollowerObserver
from ferryline.model_runtime.follower.rules import Phase, Refusal
from ferryline.model_runtime.served import ServedModel

if TYPE_CHECKING:
    from ferryline.grpc_server.offering import Offering


@dataclass(frozen=True, slots=True)
class _Warm:
    """What can be asked right now; replaced as a whole."""

    current: Offering | None = None
    canary: Offering | None = None
    by_version: Mapping[int, Offering] = field(default_factory=dict)


class Need(Enum):
    """What readiness asks of a channel."""

    SERVES = auto()
    """Somebody named it: it must serve."""
    TRIED = auto()
    """It was found at the start: it must serve unless what it has cannot, or it has nothing."""
    NOTHING = auto()
    """It came later."""


class FollowedChannel(FollowerObserver):
    """A channel and its follower.

    The offering of a new version is made on the follower's thread, so that no request waits for it, and
    becomes visible by one assignment.

    Args:
        follower: follows the channel; not started yet.
        need: what readiness asks of it.

    Attributes:
        model: the model's name.
        name: the channel's.
        counters: what happened to it.
    """

    def __init__(self, follower: Follower, need: Need = Need.SERVES) -> None:
        self.model = follower.model
        self.name = follower.channel
        self.follower = follower
        self.need = need
        self.counters = ModelCounters()
        self._warm = _Warm()
        self._changing = threading.Lock()
        self._prepared: dict[int, Offering] = {}
        self._failure: tuple[str, float] | None = None
        self._tried = False
        follower.observe(self)
        follower.answers = self.counters.answers

    def __str__(self) -> str:
        return f"{self.model}:{self.name}"

    @property
    def current(self) -> Offering | None:
        """The version that serves, None until there is one."""
        return self._warm.current

    @property
    def by_version(self) -> Mapping[int, Offering]:
        """The versions that can be asked: what serves, its canary, what served before, older ones."""
        return self._warm.by_version

    @property
    def met(self) -> bool:
        """Whether it is what readiness asks of it."""
        if self.need is Need.NOTHING or self.current is not None:
            return True
        return self.need is Need.TRIED and self._tried

    def take(self, request_id: str = "") -> Offering:
        """What answers a request for the channel.

        While a canary runs, the request's id decides between the two; one without an id is drawn by lot.

        Raises:
            NotReadyError: nothing serves yet.
        """
        warm = self._warm
        if warm.current is None:
            raise NotReadyError(self._why_not_ready())
        return warm.current if warm.canary is None else _drawn(warm.current, warm.canary, request_id)

    def failing_seconds(self) -> float:
        """How long following has been failing without a success in between; 0 while it works."""
        failure = self._failure
        if failure is None or self.follower.report().last_error != failure[0]:
            return 0.0
        return time.monotonic() - failure[1]

    # --- on the follower's thread -----------------------------------------------------------------

    def swapped(self, served: ServedModel, seconds: float) -> None:
        """Offer `served`, and go on offering what is warm besides."""
        offered = {id(offering.session): offering for offering in self._warm.by_version.values()}
        known, self._prepared = {**self._prepared, **offered}, {}
        self.counters.warm = frozenset(model.version for model in self.follower.warm)
        warm = {model.version: self._offer(model, known) for model in self.follower.warm}
        canary = warm[served.canary.model.version] if served.canary is not None else None
        with self._changing:
            self._warm = self._still_warm(_Warm(warm[served.version], canary, warm))
        self.counters.swaps += 1
        self.counters.swap_seconds += seconds
        self.counters.last_swap_seconds = seconds

    def prepare(self, offering: Offering) -> None:
        """Hear what was worked out of a session that is put to serve next, so that it need not be then."""
        self._prepared[id(offering.session)] = offering

    def trimmed(self) -> None:
        """Offer no more what gave its room to another channel; called on that one's thread."""
        with self._changing:
            self._warm = self._still_warm(self._warm)

    def polled(self) -> None:
        """Remember if there was nothing that can serve."""
        self._tried = self._tried or self.follower.report().phase == Phase.FOLLOWING

    def refused(self, refusal: Refusal) -> None:
        """Count it."""
        self._tried = True
        self.counters.refusals[refusal.gate] += 1

    def failed(self, reason: str) -> None:
        """Count it, and remember since when."""
        since = time.monotonic() - self.failing_seconds()
        self._failure = (reason, since)
        self.counters.follower_failures += 1

    def close(self) -> None:
        """Offer nothing from now on; to be called once nothing follows any more."""
        self._warm, self._prepared = _Warm(), {}

    def _still_warm(self, warm: _Warm) -> _Warm:
        kept = {id(model.session) for model in self.follower.warm}
        by_version = {number: each for number, each in warm.by_version.items() if id(each.session) in kept}
        return replace(warm, by_version=by_version)

    def _offer(self, served: ServedModel, known: Mapping[int, Offering]) -> Offering:
        # imported here: the supervisor of workers offers nothing, and needs neither ONNX Runtime nor protobuf
        from ferryline.grpc_server.offering import Offering

        before = known.get(id(served.session))
        if before is not None and before.served is served:
            return before
        return Offering(served, self.counters.of_version(served.version), before)

    def _why_not_ready(self) -> str:
        report = self.follower.report()
        text = f"model {self.model!r} does not serve yet: {report.phase} channel {report.channel!r}"
        if report.last_error:
            return f"{text}; {report.last_error}"
        return f"{text}; nothing is promoted there yet" if report.phase == Phase.FOLLOWING else text


def _drawn(current: Offering, canary: Offering, request_id: str) -> Offering:
    key = request_id.encode() or os.urandom(8)
    return current if current.served.chosen_for(key) is current.served else canary
