"""The models this server serves, by name, each with its follower and the versions it keeps warm."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from grpc_server.counters import ModelCounters
from grpc_server.errors import InvalidRequestError, NotReadyError, NotServedError, shortened
from grpc_server.offering import Offering
from model_runtime.follower import Follower, FollowerObserver
from model_runtime.follower.rules import Refusal
from model_runtime.served import ServedModel

# no store holds more than ten digits' worth of versions
LONGEST_VERSION = 10


@dataclass(frozen=True, slots=True)
class _Warm:
    """What can be asked right now; replaced as a whole."""

    current: Offering | None = None
    canary: Offering | None = None
    by_version: Mapping[int, Offering] = field(default_factory=dict)


class FollowedModel(FollowerObserver):
    """One model of this server.

    The offering of a new version is made on the follower's thread, so that no request waits for it, and
    becomes visible by one assignment.

    Args:
        follower: follows the model's channel; not started yet.
    """

    def __init__(self, follower: Follower) -> None:
        self.name = follower.model
        self.follower = follower
        self.counters = ModelCounters()
        self._warm = _Warm()
        self._failure: tuple[str, float] | None = None
        follower.observe(self)
        follower.answers = self.counters.answers

    @property
    def current(self) -> Offering | None:
        """The version that serves, None until there is one."""
        return self._warm.current

    @property
    def warm_versions(self) -> list[int]:
        """The versions that can be asked, the one that serves first."""
        return list(self._warm.by_version)

    def take(self, version: str, request_id: str = "") -> Offering:
        """What answers a request for `version`, as the protocol writes it; empty for what serves.

        While a canary runs, the request's id decides between the two; one without an id is drawn by lot.

        Raises:
            NotReadyError: nothing serves yet.
            NotServedError: the version is not warm here.
            InvalidRequestError: it is no version number.
        """
        warm = self._warm
        if warm.current is None:
            raise NotReadyError(self._why_not_ready())
        if not version:
            return warm.current if warm.canary is None else _drawn(warm.current, warm.canary, request_id)
        found = warm.by_version.get(_version_number(version))
        if found is None:
            listed = ", ".join(str(number) for number in warm.by_version)
            raise NotServedError(f"model {self.name!r} has no warm version {version}; warm here: {listed}")
        return found

    def failing_seconds(self) -> float:
        """How long following has been failing without a success in between; 0 while it works."""
        failure = self._failure
        if failure is None or self.follower.report().last_error != failure[0]:
            return 0.0
        return time.monotonic() - failure[1]

    # --- on the follower's thread -----------------------------------------------------------------

    def swapped(self, served: ServedModel, seconds: float) -> None:
        """Offer `served`, and go on offering the version before it."""
        known = {id(offering.served): offering for offering in self._warm.by_version.values()}
        current = self._offer(served)
        canary = self._offer(served.canary.model) if served.canary is not None else None
        by_version = {offering.served.version: offering for offering in (current, canary) if offering}
        previous = self.follower.previous
        if previous is not None and previous.version not in by_version:
            by_version[previous.version] = known.get(id(previous)) or self._offer(previous)
        self._warm = _Warm(current, canary, by_version)
        self.counters.swaps += 1
        self.counters.swap_seconds += seconds
        self.counters.last_swap_seconds = seconds

    def refused(self, refusal: Refusal) -> None:
        """Count it."""
        self.counters.refusals[refusal.gate] += 1

    def failed(self, reason: str) -> None:
        """Count it, and remember since when."""
        since = time.monotonic() - self.failing_seconds()
        self._failure = (reason, since)
        self.counters.follower_failures += 1

    def close(self) -> None:
        """Offer nothing from now on; to be called once nothing follows any more."""
        self._warm = _Warm()

    def _offer(self, served: ServedModel) -> Offering:
        return Offering(served, self.counters.of_version(served.version))

    def _why_not_ready(self) -> str:
        report = self.follower.report()
        text = f"model {self.name!r} does not serve yet: {report.phase} channel {report.channel!r}"
        if report.last_error:
            return f"{text}; {report.last_error}"
        return f"{text}; nothing is promoted there yet" if report.phase == "following" else text


class Models:
    """All models of this server.

    Args:
        models: what is served from the start.
        optional: names of those without which the server is ready all the same.
    """

    def __init__(self, models: Sequence[FollowedModel], optional: Iterable[str] = ()) -> None:
        self._models = {model.name: model for model in models}
        self._optional = frozenset(optional)

    def add(self, model: FollowedModel) -> None:
        """Serve `model` too."""
        self._models = {**self._models, model.name: model}

    def remove(self, name: str) -> None:
        """Serve the model `name` no more; requests that have taken its version keep it."""
        self._models = {known: model for known, model in self._models.items() if known != name}

    def find(self, name: str) -> FollowedModel | None:
        """The model called `name`, None where it is not served here."""
        return self._models.get(name)

    def __iter__(self) -> Iterator[FollowedModel]:
        return iter(self._models.values())

    def get(self, name: str) -> FollowedModel:
        """The model called `name`.

        Raises:
            NotServedError: this server does not serve it.
        """
        found = self._models.get(name)
        if found is None:
            served = ", ".join(repr(known) for known in self._models) or "none"
            raise NotServedError(f"no model {shortened(name)} here; this server serves {served}")
        return found

    @property
    def ready(self) -> bool:
        """Whether every model that is required has a version that serves."""
        return all(model.current is not None for model in self if self.requires(model.name))

    def requires(self, name: str) -> bool:
        """Whether the server is ready only when that model serves."""
        return name not in self._optional


class SwapListener(FollowerObserver):
    """Calls `notify` after each swap, on the follower's thread."""

    def __init__(self, notify: Callable[[], object]) -> None:
        self._notify = notify

    def swapped(self, served: ServedModel, seconds: float) -> None:  # noqa: ARG002 - the observer's form
        """Pass it on."""
        self._notify()


def _drawn(current: Offering, canary: Offering, request_id: str) -> Offering:
    key = request_id.encode() or os.urandom(8)
    return current if current.served.chosen_for(key) is current.served else canary


def _version_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= LONGEST_VERSION):
        raise InvalidRequestError(
            f"model_version {shortened(text)} is no version: use 1, 2, 3 …, or leave it empty for what serves"
        )
    return int(text)
