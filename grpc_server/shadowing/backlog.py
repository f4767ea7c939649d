"""The requests that wait to be run again by one shadow: few enough, and small enough together."""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar

from ferryline.grpc_server.shadowing.policy import BacklogLimits


class Sized(Protocol):
    """Something that takes memory while it waits."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...


_S = TypeVar("_S", bound=Sized)


class Backlog(Generic[_S]):
    """First in, first out, between one thread that puts and one that takes; neither waits for the other.

    Args:
        limits: what may wait.
    """

    __slots__ = ("_limits", "_put", "_taken", "_waiting")

    def __init__(self, limits: BacklogLimits) -> None:
        self._limits = limits
        self._waiting: deque[_S] = deque()
        # two numbers that only rise, each written by one thread: a difference needs no lock
        self._put = 0
        self._taken = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._put - self._taken

    def put(self, item: _S) -> bool:
        """Let it wait; False where there is no room."""
        size = item.size
        if len(self._waiting) >= self._limits.requests or self.size + size > self._limits.size:
            return False
        self._put += size
        self._waiting.append(item)
        return True

    def take(self) -> _S | None:
        """What has waited longest, None for nothing."""
        if not self._waiting:
            return None
        item = self._waiting.popleft()
        self._taken += item.size
        return item
