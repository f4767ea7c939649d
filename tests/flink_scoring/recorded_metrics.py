"""A metric group in memory: what Flink's would be told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass
class Recorded:
    """A counter, meter or distribution, with every value it was given."""

    values: list[int] = field(default_factory=list)

    def inc(self, n: int = 1) -> None:
        self.values.append(n)

    mark_event = update = inc

    @property
    def total(self) -> int:
        return sum(self.values)


@dataclass
class RecordedGroup:
    """A metric group; groups below it share its instruments under longer names."""

    path: str = ""
    instruments: dict[str, Recorded] = field(default_factory=dict)
    gauges: dict[str, Callable[[], int]] = field(default_factory=dict)

    def add_group(self, name: str, extra: str | None = None) -> RecordedGroup:
        below = f"{self.path}{name}." + (f"{extra}." if extra else "")
        return RecordedGroup(below, self.instruments, self.gauges)

    def counter(self, name: str) -> Recorded:
        return self.instruments.setdefault(self.path + name, Recorded())

    def distribution(self, name: str) -> Recorded:
        return self.counter(name)

    def meter(self, name: str, time_span_in_seconds: int = 60) -> Recorded:
        return self.counter(name)

    def gauge(self, name: str, obj: Callable[[], int]) -> None:
        self.gauges[self.path + name] = obj

    def shown(self) -> Iterator[tuple[str, int]]:
        """Every gauge with its value now."""
        return ((name, read()) for name, read in self.gauges.items())
