"""How far what serves is behind its channel."""

from __future__ import annotations

from datetime import datetime

from ferryline.grpc_server.channels import FollowedChannel
from ferryline.registry.documents import utc_now


def generations_behind(channel: FollowedChannel) -> int | None:
    """How many generations are newer than the one that serves, as far as is known; None before any is."""
    newest = channel.follower.newest
    if newest is None:
        return None
    current = channel.current
    return newest.generation - (0 if current is None else min(current.served.generation, newest.generation))


def seconds_behind(channel: FollowedChannel) -> float | None:
    """Seconds since the newest generation was promoted, if another one serves; 0 if it serves itself.

    None before any is known. By the clock of whoever promoted it and this machine's.
    """
    newest = channel.follower.newest
    if newest is None:
        return None
    return _since(newest.at) if generations_behind(channel) else 0.0


def read_age(channel: FollowedChannel) -> float | None:
    """Seconds since the channel was last read; None before it was."""
    read = channel.follower.report().polled_at
    return None if read is None else _since(read)


def _since(moment: datetime) -> float:
    return max(0.0, (utc_now() - moment).total_seconds())
