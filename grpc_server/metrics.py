"""The counters as Prometheus metrics: Triton's names for requests, `ferry_` for models and their freshness.

Triton's counters have no `_total` in their names, which the Prometheus client gives every counter; they are
exported as untyped, so that the dashboards and alerts of Triton's users work as they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, UnknownMetricFamily
from prometheus_client.registry import Collector

from ferryline.grpc_server import freshness
from ferryline.grpc_server.channels import FollowedChannel
from ferryline.grpc_server.counters import VersionCounters
from ferryline.grpc_server.models import Models
from ferryline.grpc_server.provenance import newest_event_time

if TYPE_CHECKING:
    from ferryline.grpc_server.offering import Offering

NS_PER_US = 1000


@dataclass(frozen=True, slots=True)
class _PerVersion:
    name: str
    text: str
    value: Callable[[VersionCounters], float]


_PER_VERSION = (
    _PerVersion("nv_inference_request_success", "Requests answered", lambda c: c.success),
    _PerVersion("nv_inference_request_failure", "Requests that got an error", lambda c: c.failure),
    _PerVersion(
        "nv_inference_count", "Inferences: a request counts as many as it has rows", lambda c: c.rows
    ),
    _PerVersion("nv_inference_exec_count", "Runs of the model", lambda c: c.runs),
    _PerVersion(
        "nv_inference_pending_request_count", "Requests that wait for a run right now", lambda c: c.pending
    ),
    _PerVersion(
        "nv_inference_queue_duration_us",
        "Microseconds that answered requests waited for their run",
        lambda c: c.queue_ns // NS_PER_US,
    ),
    _PerVersion(
        "ferry_overloaded_requests", "Requests refused because too many waited", lambda c: c.overloaded
    ),
    _PerVersion(
        "ferry_expired_requests", "Requests not run because their deadline passed", lambda c: c.expired
    ),
    _PerVersion(
        "ferry_cancelled_requests", "Requests whose caller left before the answer", lambda c: c.cancelled
    ),
    _PerVersion(
        "ferry_run_failures",
        "Requests that fit the contract and on which the model could not be run",
        lambda c: c.faults,
    ),
    _PerVersion(
        "nv_inference_request_duration_us",
        "Microseconds spent on answered requests, from message to message",
        lambda c: c.total_ns // NS_PER_US,
    ),
    _PerVersion(
        "nv_inference_compute_input_duration_us",
        "Microseconds spent on checking and reading inputs",
        lambda c: c.input_ns // NS_PER_US,
    ),
    _PerVersion(
        "nv_inference_compute_infer_duration_us",
        "Microseconds spent on running the model",
        lambda c: c.run_ns // NS_PER_US,
    ),
    _PerVersion(
        "nv_inference_compute_output_duration_us",
        "Microseconds spent on writing outputs",
        lambda c: c.output_ns // NS_PER_US,
    ),
)


@dataclass(frozen=True, slots=True)
class _PerChannel:
    family: type[CounterMetricFamily | GaugeMetricFamily]
    name: str
    text: str
    value: Callable[[FollowedChannel], float | None]


_PER_CHANNEL = (
    _PerChannel(
        GaugeMetricFamily,
        "ferry_model_ready",
        "Whether a version serves",
        lambda m: float(m.current is not None),
    ),
    _PerChannel(
        GaugeMetricFamily,
        "ferry_channel_expired",
        "Whether nobody vouched for the channel's freshness in time",
        lambda m: float(m.follower.expired),
    ),
    _PerChannel(CounterMetricFamily, "ferry_swaps", "Generations put to serve", lambda m: m.counters.swaps),
    _PerChannel(
        CounterMetricFamily,
        "ferry_swap_seconds",
        "Seconds from seeing a generation to serving it, over all swaps",
        lambda m: m.counters.swap_seconds,
    ),
    _PerChannel(
        GaugeMetricFamily,
        "ferry_last_swap_seconds",
        "Seconds from seeing the newest generation to serving it",
        lambda m: m.counters.last_swap_seconds,
    ),
    _PerChannel(
        CounterMetricFamily,
        "ferry_follower_failures",
        "Transient failures while following a channel",
        lambda m: m.counters.follower_failures,
    ),
    _PerChannel(
        GaugeMetricFamily,
        "ferry_generations_behind",
        "Generations of the channel that are newer than the one that serves, as far as the channel was read",
        freshness.generations_behind,
    ),
    _PerChannel(
        GaugeMetricFamily,
        "ferry_seconds_behind",
        "How long the channel has had a generation that does not serve here; 0 while its newest one does",
        freshness.seconds_behind,
    ),
    _PerChannel(
        GaugeMetricFamily,
        "ferry_channel_read_age_seconds",
        "Seconds since the channel was last read: how old the other figures are when the store is away",
        freshness.read_age,
    ),
    _PerChannel(
        GaugeMetricFamily,
        "ferry_follower_failing_seconds",
        "How long following has failed without a success; 0 while it works",
        lambda m: m.failing_seconds(),
    ),
    _PerChannel(
        GaugeMetricFamily,
        "ferry_warm_versions",
        "Versions that can be asked by number",
        lambda m: len(m.by_version),
    ),
    _PerChannel(
        GaugeMetricFamily,
        "ferry_warm_bytes",
        "Memory that the warm versions take, as estimated from their files",
        lambda m: m.follower.warm_size,
    ),
)


@dataclass(frozen=True, slots=True)
class _PerOffering:
    name: str
    text: str
    value: Callable[[Offering], float | None]


def _age(offering: Offering) -> float | None:
    newest = newest_event_time(offering.served)
    return None if newest is None else time.time() - newest


_PER_OFFERING = (
    _PerOffering("ferry_model_version", "The version that serves", lambda o: o.served.version),
    _PerOffering(
        "ferry_canary_percent",
        "Percent of requests that the canary gets; 0 without one",
        lambda o: o.served.entry.canary.percent if o.served.entry.canary else 0.0,
    ),
    _PerOffering(
        "ferry_model_generation", "The channel's generation that serves", lambda o: o.served.generation
    ),
    _PerOffering(
        "ferry_model_age_seconds", "Age of the newest record that the serving version learnt from", _age
    ),
)


class ModelCollector(Collector):
    """Reads the counters of `models` when it is asked."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """Every metric, as it is now."""
        yield from self._per_version()
        yield from self._per_channel()
        yield from self._per_offering()
        yield self._refusals()

    def _per_version(self) -> Iterator[Metric]:
        for metric in _PER_VERSION:
            family = UnknownMetricFamily(metric.name, metric.text, labels=("model", "version"))
            for model in self._models:
                for version, counters in model.versions().items():
                    family.add_metric((model.name, str(version)), metric.value(counters))
            yield family

    def _per_channel(self) -> Iterator[Metric]:
        for metric in _PER_CHANNEL:
            family = metric.family(metric.name, metric.text, labels=("model", "channel"))
            for channel in self._models.channels():
                value = metric.value(channel)
                if value is not None:
                    family.add_metric(_labels(channel), value)
            yield family

    def _per_offering(self) -> Iterator[Metric]:
        for metric in _PER_OFFERING:
            family = GaugeMetricFamily(metric.name, metric.text, labels=("model", "channel"))
            for channel in self._models.channels():
                value = None if channel.current is None else metric.value(channel.current)
                if value is not None:
                    family.add_metric(_labels(channel), value)
            yield family

    def _refusals(self) -> Metric:
        family = CounterMetricFamily(
            "ferry_refusals", "Candidates refused", labels=("model", "channel", "gate")
        )
        for channel in self._models.channels():
            for gate, count in list(channel.counters.refusals.items()):
                family.add_metric((*_labels(channel), gate), count)
        return family


def _labels(channel: FollowedChannel) -> tuple[str, str]:
    return channel.model, channel.name
