"""What all workers have counted, as the supervisor's own counters and metrics."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from ferryline.grpc_server.channels import FollowedChannel
from ferryline.grpc_server.counters import VersionCounters
from ferryline.grpc_server.workers.crew import Crew, Member
from ferryline.grpc_server.workers.messages import Counted, Counts
from ferryline.grpc_server.workers.rows import FIELDS
from ferryline.grpc_server.workers.sums import Joining, Sums
from ferryline.registry.errors import FerryError

_JOINED = {"pending": Joining.NOW, "last_ns": Joining.LATEST}

_SMALLEST = frozenset({"ferry_certificate_not_after_seconds"})
"""Gauges of which the smallest is the one to watch; of others it is the largest."""

KEPT_DEATHS = 16
"""A series that only the dead have told is forgotten when more than so many have died since."""

_Version = tuple[str, int]
_Sample = tuple[str, tuple[tuple[str, str], ...]]


class Tally:
    """The sums over all workers, living and dead; to be used on the supervisor's event loop."""

    def __init__(self) -> None:
        self._versions: Sums[_Version, int] = Sums([_JOINED.get(name, Joining.SUM) for name in FIELDS])
        self._others = Relayed()

    def told(self, worker: int, message: Counted, channels: Mapping[str, FollowedChannel]) -> None:
        """A worker says how it stands."""
        rows = {
            (channel, version): row
            for channel, versions in message.counts.items()
            for version, row in versions.items()
        }
        self._versions.told(worker, rows)
        self._others.told(worker, message.metrics)
        self._forget_all_but(channels)
        self._show(rows, channels)

    def gone(self, worker: int, channels: Mapping[str, FollowedChannel]) -> None:
        """A worker counts no more."""
        self._versions.gone(worker)
        self._others.gone(worker)
        self._forget_all_but(channels)
        self._show(self._versions, channels)

    def counts(self) -> Counts:
        """All of it, as messages carry it."""
        found: Counts = {}
        for channel, version in self._versions:
            found.setdefault(channel, {})[version] = self._versions.row((channel, version))
        return found

    def others(self) -> list[Metric]:
        """What workers measure besides."""
        return list(self._others.metrics())

    def _show(self, keys: Iterable[_Version], channels: Mapping[str, FollowedChannel]) -> None:
        for key in keys:
            shown = _shown(key, channels)
            if shown is not None:
                for name, value in zip(FIELDS, self._versions.row(key), strict=True):
                    setattr(shown, name, value)

    def _forget_all_but(self, channels: Mapping[str, FollowedChannel]) -> None:
        """Forget versions that are too old to be told of, and those of channels that are left."""
        for key in list(self._versions):
            if _shown(key, channels) is None:
                self._versions.forget(key)


def _shown(key: _Version, channels: Mapping[str, FollowedChannel]) -> VersionCounters | None:
    channel = channels.get(key[0])
    return None if channel is None else channel.counters.versions.get(key[1])


class Relayed:
    """Metrics that workers tell in Prometheus' own text, joined by their types.

    A series is forgotten when the last living worker that told it tells it no more, as one process forgets
    it. What only the dead have told stays, since sums must not go back, but only until so many more have
    died that it would pile up.
    """

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}
        self._sums: Sums[_Sample, float] = Sums([Joining.SUM])
        self._told: dict[int, dict[_Sample, float]] = {}
        self._deaths = 0
        # the series of each family, and how many workers had died when one last told it
        self._members: dict[str, dict[_Sample, int]] = {}

    def told(self, worker: int, text: str) -> None:
        """A worker's metrics as they are now."""
        before, now = self._told.get(worker, {}), dict[_Sample, float]()
        for family in text_string_to_metric_families(text):
            now |= self._told_of_family(worker, family)
        self._told[worker] = now
        self._forget([key for key in before.keys() - now.keys() if not self._is_told(key)])

    def gone(self, worker: int) -> None:
        """A worker is gone: what only rises stays, gauges go."""
        self._sums.gone(worker)
        self._told.pop(worker, None)
        self._deaths += 1
        series = (each for members in self._members.values() for each in members.items())
        self._forget([key for key, deaths in series if self._deaths - deaths > KEPT_DEATHS])

    def metrics(self) -> Iterator[Metric]:
        """All of them."""
        for name, family in self._families.items():
            joined = Metric(name, family.documentation, family.type, family.unit)
            for key in self._members[name]:
                value = self._value(family, key)
                if value is not None:
                    joined.add_sample(key[0], dict(key[1]), value)
            yield joined

    def _told_of_family(self, worker: int, family: Metric) -> dict[_Sample, float]:
        values = {(each.name, tuple(each.labels.items())): each.value for each in family.samples}
        self._families[family.name] = family
        self._members.setdefault(family.name, {}).update(dict.fromkeys(values, self._deaths))
        if family.type != "gauge":
            self._sums.told(worker, {key: (value,) for key, value in values.items()})
        return values

    def _is_told(self, key: _Sample) -> bool:
        return any(key in told for told in self._told.values())

    def _forget(self, keys: Iterable[_Sample]) -> None:
        for key in keys:
            self._sums.forget(key)
            for members in self._members.values():
                members.pop(key, None)

    def _value(self, family: Metric, key: _Sample) -> float | None:
        if family.type != "gauge":
            return self._sums.row(key)[0]
        values = [told[key] for told in self._told.values() if key in told]
        if not values:
            return None
        return min(values) if family.name in _SMALLEST else max(values)


class WorkerMetrics:
    """The workers themselves, and what they measure besides requests; to be used on the event loop.

    Args:
        crew: the workers.
        tally: what they have counted.
    """

    def __init__(self, crew: Crew, tally: Tally) -> None:
        self._crew = crew
        self._tally = tally
        self._cpu: Sums[str, float] = Sums([Joining.SUM])
        self._seen: set[int] = set()

    def now(self) -> list[Metric]:
        """Every metric, as it was when the workers were last asked."""
        members = self._crew.members
        return [
            GaugeMetricFamily("ferry_workers", "Workers that take requests", self._crew.listening),
            CounterMetricFamily("ferry_worker_restarts", "Workers replaced", self._crew.restarts),
            self._resident(members),
            self._cpu_seconds(members),
            *self._tally.others(),
        ]

    def _resident(self, members: list[Member]) -> Metric:
        family = GaugeMetricFamily("ferry_worker_resident_bytes", "Resident memory", labels=("worker",))
        for member in members:
            family.add_metric((str(member.slot),), member.resident_bytes)
        return family

    def _cpu_seconds(self, members: list[Member]) -> Metric:
        for member in members:
            self._cpu.told(member.number, {str(member.slot): (member.cpu_seconds,)})
        numbers = {member.number for member in members}
        for number in self._seen - numbers:
            self._cpu.gone(number)
        self._seen = numbers
        family = CounterMetricFamily("ferry_worker_cpu_seconds", "Processor time", labels=("worker",))
        for slot in sorted(self._cpu):
            family.add_metric((slot,), self._cpu.row(slot)[0])
        return family


class WorkersCollector(Collector):
    """What there is to say of workers; to be collected first, so that others read counters that are fresh.

    Args:
        measure: has the workers asked, and gives the metrics; called on the thread of a scrape.
    """

    def __init__(self, measure: Callable[[], Sequence[Metric]]) -> None:
        self._measure = measure
        self._last: Sequence[Metric] = ()

    def collect(self) -> Iterator[Metric]:
        """Every metric; as before where the supervisor does not answer in time, or ends."""
        with contextlib.suppress(FerryError):
            self._last = self._measure()
        return iter(self._last)
