"""What is counted of shadows as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ferryline.grpc_server.shadowing.counters import BOUNDS, OutputCounters, PairCounters, cumulated
from ferryline.grpc_server.shadowing.sampling import Shadow

NS = 1e9

_PAIR = ("model", "version", "shadow_version")


@dataclass(frozen=True, slots=True)
class _PerPair:
    name: str
    text: str
    value: Callable[[PairCounters], float]


_PER_PAIR = (
    _PerPair("ferry_shadow_compared", "Requests run again by the shadow and compared", lambda p: p.compared),
    _PerPair(
        "ferry_shadow_dropped",
        "Requests not run again: too many waited, or the shadow's version was gone",
        lambda p: p.dropped,
    ),
    _PerPair(
        "ferry_shadow_run_seconds",
        "Processor time of the shadow's runs of the requests that were compared",
        lambda p: p.run_ns / NS,
    ),
    _PerPair(
        "ferry_shadow_answer_run_seconds",
        "What the runs took that answered the requests that were compared",
        lambda p: p.answer_ns / NS,
    ),
)


class ShadowCollector(Collector):
    """Reads the counters of `shadows` when it is asked."""

    def __init__(self, shadows: Sequence[Shadow]) -> None:
        self._shadows = shadows

    def collect(self) -> Iterator[Metric]:
        """Every metric, as it is now; none where there are no shadows."""
        if self._shadows:
            yield self._versions()
            yield from self._per_pair()
            yield self._failed()
            yield from self._labels()
            yield self._differences()

    def _versions(self) -> Metric:
        family = GaugeMetricFamily(
            "ferry_shadow_version", "The shadow's version", labels=("model", "channel")
        )
        for shadow in self._shadows:
            current = shadow.channel.current
            if current is not None:
                family.add_metric((shadow.policy.model, shadow.policy.channel), current.served.version)
        return family

    def _per_pair(self) -> Iterator[Metric]:
        for metric in _PER_PAIR:
            family = CounterMetricFamily(metric.name, metric.text, labels=_PAIR)
            for labels, pair in self._pairs():
                family.add_metric(labels, metric.value(pair))
            yield family

    def _failed(self) -> Metric:
        family = CounterMetricFamily(
            "ferry_shadow_failed",
            "Requests that could not be compared, or not in every output",
            labels=(*_PAIR, "reason"),
        )
        for labels, pair in self._pairs():
            for reason, count in pair.failed.items():
                family.add_metric((*labels, reason), count)
        return family

    def _labels(self) -> Iterator[Metric]:
        compared = CounterMetricFamily(
            "ferry_shadow_labels", "Labels that were compared, one for each row", labels=(*_PAIR, "output")
        )
        agreed = CounterMetricFamily(
            "ferry_shadow_agreed", "Labels that were the same", labels=(*_PAIR, "output")
        )
        for labels, output in self._outputs():
            if output.labels:
                compared.add_metric(labels, output.labels)
                agreed.add_metric(labels, output.agreed)
        yield from (compared, agreed)

    def _differences(self) -> Metric:
        family = HistogramMetricFamily(
            "ferry_shadow_difference",
            "Requests by the largest absolute difference in an output",
            labels=(*_PAIR, "output"),
        )
        bounds = [*map(str, BOUNDS), "+Inf"]
        for labels, output in self._outputs():
            counts = cumulated(output.distances)
            if counts[-1]:
                buckets = list(zip(bounds, counts, strict=True))
                family.add_metric(labels, buckets=buckets, sum_value=output.distance_sum)
        return family

    def _pairs(self) -> Iterator[tuple[tuple[str, ...], PairCounters]]:
        for shadow in self._shadows:
            for pair in shadow.pairs.values():
                yield (shadow.policy.model, str(pair.version), str(pair.shadow_version)), pair

    def _outputs(self) -> Iterator[tuple[tuple[str, ...], OutputCounters]]:
        for labels, pair in self._pairs():
            for name, output in list(pair.outputs.items()):
                yield (*labels, name), output
