"""What a new worker must be told, so that it serves what the others do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ferryline.grpc_server.workers.messages import (
    Complete,
    Followed,
    Left,
    Offer,
    Prepare,
    Release,
    Told,
    ToWorker,
    Unloaded,
)


@dataclass(slots=True)
class _Channel:
    followed: Followed
    told: Told | None = None
    offer: Offer | None = None


class Briefing:
    """Remembers of all that workers were told what still holds."""

    def __init__(self) -> None:
        self._channels: dict[tuple[str, str], _Channel] = {}
        self._sessions: dict[int, Prepare] = {}
        self._complete: Complete | None = None
        self._unloaded: Unloaded | None = None

    def remember(self, message: ToWorker) -> None:
        """The workers are told `message`."""
        match message:
            case Prepare(round=number):
                self._sessions[number] = message
            case Release(session=number):
                self._release(number)
            case Complete():
                self._complete = message
            case Unloaded():
                self._unloaded = message
            case _:
                self._remember_of_channel(message)

    def _release(self, number: int) -> None:
        self._sessions.pop(number, None)
        for channel in self._channels.values():
            if channel.offer is not None:
                channel.offer = _without(channel.offer, number)

    def _remember_of_channel(self, message: ToWorker) -> None:
        match message:
            case Followed(model=model, channel=name):
                self._channels[model, name] = _Channel(message)
            case Left(model=model, channel=name):
                self._channels.pop((model, name), None)
            case Offer(model=model, channel=name):
                if channel := self._channels.get((model, name)):
                    channel.offer = message
            case Told(report=report):
                if channel := self._channels.get((report.model, report.channel)):
                    channel.told = message
            case _:
                pass

    def sessions(self) -> list[int]:
        """The sessions that a new worker is asked to prepare."""
        return list(self._sessions)

    def served(self) -> set[int]:
        """The sessions without which a worker cannot answer as the others do: what serves, and canaries."""
        offers = [channel.offer for channel in self._channels.values() if channel.offer is not None]
        canaries = {offer.canary for offer in offers if offer.canary is not None}
        return {offer.warm[0].session for offer in offers} | canaries

    def messages(self) -> Iterator[ToWorker]:
        """All of it, in an order in which nothing is told before what it needs."""
        channels = list(self._channels.values())
        yield from (channel.followed for channel in channels)
        yield from (channel.told for channel in channels if channel.told is not None)
        yield from self._sessions.values()
        yield from (channel.offer for channel in channels if channel.offer is not None)
        yield from (message for message in (self._unloaded, self._complete) if message is not None)


def _without(offer: Offer, session: int) -> Offer | None:
    left = tuple(warm for warm in offer.warm if warm.session != session)
    if len(left) == len(offer.warm):
        return offer
    # what serves is held by whoever serves it; where it is let go, the channel is left
    return offer.model_copy(update={"warm": left}) if left and left[0] == offer.warm[0] else None
