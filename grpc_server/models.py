"""The models this server serves, by name, each with the channels it follows of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ferryline.grpc_server.channels import FollowedChannel, Need
from ferryline.grpc_server.counters import VersionCounters, merged
from ferryline.grpc_server.errors import InvalidRequestError, NotReadyError, NotServedError, shortened
from ferryline.model_runtime.follower import FollowerObserver
from ferryline.model_runtime.follower.rules import Refusal
from ferryline.model_runtime.served import ServedModel
from ferryline.registry.names import is_name

if TYPE_CHECKING:
    from ferryline.grpc_server.offering import Offering
    from ferryline.grpc_server.shadowing.sampling import Shadow

# no store holds more than ten digits' worth of versions
LONGEST_VERSION = 10


class FollowedModel:
    """One model, by one or more of its channels; it never changes, another takes its place.

    Args:
        channels: the channels followed; the first of them answers requests that name nothing.
        shadow: runs such requests again, None where nothing does.
    """

    def __init__(self, channels: Sequence[FollowedChannel], shadow: Shadow | None = None) -> None:
        self.channels = tuple(channels)
        self.shadow = shadow
        self.default = self.channels[0]
        self.name = self.default.model
        self._by_name = {channel.name: channel for channel in reversed(self.channels)}

    @property
    def current(self) -> Offering | None:
        """What answers requests that name nothing, None until there is something."""
        return self.default.current

    @property
    def warm_versions(self) -> list[int]:
        """The versions that can be asked by number, the one that serves first."""
        return list(dict.fromkeys(number for channel in self.channels for number in channel.by_version))

    def versions(self) -> Mapping[int, VersionCounters]:
        """What is counted of each version, over all channels."""
        return merged([channel.counters.versions for channel in self.channels])

    def channel(self, name: str) -> FollowedChannel | None:
        """The channel `name`, None where it is not followed."""
        return self._by_name.get(name)

    def take(self, version: str, request_id: str = "") -> Offering:
        """What answers a request.

        Args:
            version: what the protocol calls so: a version's number, a channel's name, or empty for what the
                first channel serves. Digits are always a number.
            request_id: decides between what serves and its canary.

        Raises:
            NotReadyError: nothing serves yet.
            NotServedError: the version is not warm here, or the channel not followed.
            InvalidRequestError: it can be neither.
        """
        if not version:
            return self.default.take(request_id)
        if version.isascii() and version.isdigit() and len(version) <= LONGEST_VERSION:
            return self._numbered(int(version))
        channel = self._by_name.get(version)
        if channel is None:
            raise self._no_channel(version)
        return channel.take(request_id)

    def _numbered(self, version: int) -> Offering:
        for channel in self.channels:
            found = channel.by_version.get(version)
            if found is not None:
                return found
        if not any(channel.by_version for channel in self.channels):
            self.default.take()
            raise NotReadyError(f"model {self.name!r} does not serve yet")  # unless it does by now
        raise NotServedError(f"model {self.name!r} has no warm version {version}; {self._warm_here()}")

    def _no_channel(self, text: str) -> NotServedError | InvalidRequestError:
        named = is_name(text) and not text.isdigit()
        reason = (
            f"model_version {shortened(text)} is no version and no channel that is followed of model "
            f"{self.name!r}: use a number, a channel's name, or leave it empty for channel "
            f"{self.default.name!r}; {self._warm_here()}"
        )
        return NotServedError(reason) if named else InvalidRequestError(reason)

    def _warm_here(self) -> str:
        lists = [", ".join(map(str, channel.by_version)) or "nothing" for channel in self.channels]
        if len(lists) == 1:
            return f"warm here: {lists[0]}"
        pairs = zip(lists, self.channels, strict=True)
        return "warm here: " + "; ".join(
            f"{versions} of channel {channel.name}" for versions, channel in pairs
        )


class Models:
    """All models of this server.

    Args:
        channels: what is followed from the start; of each model, the first channel answers requests that name
            nothing.
        optional: models, and channels as MODEL:CHANNEL, without which the server is ready all the same.
        shadows: what runs requests again, by model.

    Attributes:
        complete: whether all are here that were to be found at the start; the server is not ready before.
    """

    def __init__(
        self,
        channels: Iterable[FollowedChannel] = (),
        optional: Iterable[str] = (),
        shadows: Mapping[str, Shadow] | None = None,
    ) -> None:
        self.complete = True
        self._shadows = shadows or {}
        self._models: dict[str, FollowedModel] = {}
        self._optional = frozenset(optional)
        for channel in channels:
            self.add(channel)

    def add(self, channel: FollowedChannel) -> None:
        """Serve `channel` too."""
        known = self._models.get(channel.model)
        model = self._model([*(known.channels if known is not None else ()), channel])
        self._models = {**self._models, model.name: model}

    def remove(self, channel: FollowedChannel) -> None:
        """Serve `channel` no more; requests that have taken a version of it keep that."""
        left = [each for each in self.get(channel.model).channels if each is not channel]
        changed = {channel.model: self._model(left)} if left else {}
        others = {name: model for name, model in self._models.items() if left or name != channel.model}
        self._models = {**others, **changed}

    def find(self, name: str) -> FollowedModel | None:
        """The model called `name`, None where it is not served here."""
        return self._models.get(name)

    def __iter__(self) -> Iterator[FollowedModel]:
        return iter(self._models.values())

    def channels(self) -> Iterator[FollowedChannel]:
        """All channels of all models."""
        return (channel for model in self for channel in model.channels)

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
        """Whether every channel that is required has a version that serves."""
        return self.complete and all(channel.met for channel in self.channels() if self.requires(channel))

    def requires(self, channel: FollowedChannel) -> bool:
        """Whether the server is ready only when that channel serves."""
        is_optional = not self._optional.isdisjoint((channel.model, str(channel)))
        return channel.need is not Need.NOTHING and not is_optional

    def _model(self, channels: Sequence[FollowedChannel]) -> FollowedModel:
        return FollowedModel(channels, self._shadows.get(channels[0].model))


class ChangeListener(FollowerObserver):
    """Calls `notify` when readiness may have changed, on the follower's thread."""

    def __init__(self, notify: Callable[[], object]) -> None:
        self._notify = notify
        self._polled = False

    def swapped(self, served: ServedModel, seconds: float) -> None:  # noqa: ARG002 - the observer's form
        """Something else serves."""
        self._notify()

    def refused(self, refusal: Refusal) -> None:  # noqa: ARG002 - the observer's form
        """It was tried, and cannot serve."""
        self._notify()

    def polled(self) -> None:
        """At the first time there may be nothing to serve."""
        if not self._polled:
            self._polled = True
            self._notify()
