"""The requests of one model that wait, and which of them run together next."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from ferryline.grpc_server.execution.policy import BatchPolicy


class Waiting(Protocol):
    """A request as the line sees it; it is told from others by identity."""

    @property
    def rows(self) -> int:
        """How many rows it has."""
        ...

    @property
    def size(self) -> int:
        """How many bytes its inputs have."""
        ...

    @property
    def arrived(self) -> float:
        """When it came, in seconds of a clock that only goes forward."""
        ...

    @property
    def group(self) -> Hashable | None:
        """Requests of one group may run together; None for one that must run alone."""
        ...


_W = TypeVar("_W", bound=Waiting)


@dataclass(slots=True)
class _Group(Generic[_W]):
    # a dict keeps the order of arrival and gives up any member at once
    members: dict[_W, None] = field(default_factory=dict)
    rows: int = 0

    @property
    def first(self) -> _W:
        return next(iter(self.members))


class Line(Generic[_W]):
    """Who waits.

    A group is due when its rows fill a batch or its first request has waited long enough. Of the due groups
    the one whose first request came first goes first. Within a group nobody is overtaken.
    """

    def __init__(self, policy: BatchPolicy) -> None:
        self.policy = policy
        self.count = 0
        self.size = 0
        self._groups: dict[Hashable | None, _Group[_W]] = {}

    def __contains__(self, waiting: _W) -> bool:
        group = self._groups.get(waiting.group)
        return group is not None and waiting in group.members

    def __iter__(self) -> Iterator[_W]:
        for group in self._groups.values():
            yield from group.members

    def add(self, waiting: _W) -> None:
        """Let it wait."""
        group = self._groups.setdefault(waiting.group, _Group())
        group.members[waiting] = None
        group.rows += waiting.rows
        self.count += 1
        self.size += waiting.size

    def remove(self, waiting: _W) -> None:
        """Let it go, to run or for good.

        Raises:
            KeyError: it does not wait.
        """
        group = self._groups[waiting.group]
        del group.members[waiting]
        group.rows -= waiting.rows
        self.count -= 1
        self.size -= waiting.size
        if not group.members:
            del self._groups[waiting.group]

    def due_at(self) -> float | None:
        """When the next batch is due, which may be past; None when nobody waits."""
        return min((self._due_at(key, group) for key, group in self._groups.items()), default=None)

    def next_batch(self, now: float) -> list[_W]:
        """Those who run together next, if they are due; they go on waiting until they are removed."""
        due = [(group.first.arrived, key) for key, group in self._groups.items()
               if self._due_at(key, group) <= now]  # fmt: skip
        if not due:
            return []
        key = min(due, key=lambda each: each[0])[1]
        group = self._groups[key]
        return [group.first] if key is None else self._fitting(group)

    def _fitting(self, group: _Group[_W]) -> list[_W]:
        batch: list[_W] = []
        rows = 0
        for waiting in group.members:
            rows += waiting.rows
            if batch and rows > self.policy.max_batch_size:
                break
            batch.append(waiting)
        return batch

    def _due_at(self, key: Hashable | None, group: _Group[_W]) -> float:
        arrived = group.first.arrived
        full = key is None or group.rows >= self.policy.max_batch_size
        return arrived if full else arrived + self.policy.delay
