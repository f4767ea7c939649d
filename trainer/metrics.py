"""What the trainer tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from ferryline.registry.errors import UsageError

_EXPORT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class TrainerMetrics:
    """The trainer's metrics in a registry of their own, each with its model's name."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._model = model
        self.records = self._counter("records", "Records learnt")
        self.consumed = self._counter("consumed", "Records read, learnt or rejected")
        self._rejected = Counter(
            "ferry_trainer_rejected", "Records rejected", ["model", "reason"], registry=self.registry
        )
        self.accuracy = self._gauge("accuracy", "Prequential accuracy over the evaluation window")
        self.log_loss = self._gauge("log_loss", "Prequential log loss over the evaluation window")
        self.version = self._gauge("version", "Last version published")
        self.generation = self._gauge("generation", "Last channel generation that this trainer wrote")
        self.newest_event_time = self._gauge(
            "newest_event_time_seconds", "Newest event learnt, seconds since 1970"
        )
        self.lag = self._gauge("lag_records", "Records in the topic that are not read yet")
        self.publish_failures = self._counter(
            "publish_failures", "Attempts to publish or promote that failed"
        )
        self.export_failures = self._counter(
            "export_failures", "Attempts to export a version, or to save the state before it, that failed"
        )
        self._refused = Counter(
            "ferry_trainer_exports_refused",
            "Exports refused by a gate",
            ["model", "gate"],
            registry=self.registry,
        )
        self.export_seconds = Histogram(
            "ferry_trainer_export_seconds",
            "Conversion, parity check and golden rows of one version",
            ["model"],
            buckets=_EXPORT_BUCKETS,
            registry=self.registry,
        ).labels(model)

    def reject(self, reason: str) -> None:
        """Count a rejected record."""
        self._rejected.labels(self._model, reason).inc()

    def refuse(self, gate: str) -> None:
        """Count a refused export."""
        self._refused.labels(self._model, gate).inc()

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"ferry_trainer_{name}", text, ["model"], registry=self.registry).labels(self._model)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"ferry_trainer_{name}", text, ["model"], registry=self.registry).labels(self._model)


def serve_metrics(
    metrics: TrainerMetrics, port: int, *, host: str = "127.0.0.1"
) -> tuple[int, Callable[[], None]]:
    """Serve `/metrics`; returns the port (a free one for 0) and what stops it.

    Raises:
        UsageError: the port is taken.
    """
    try:
        server, thread = start_http_server(port, addr=host, registry=metrics.registry)
    except OSError as error:
        raise UsageError(
            f"the metrics port {host}:{port} cannot be used: {error.strerror}; "
            "name another with --metrics-port (0 takes a free one)"
        ) from error
    return server.server_port, lambda: _stop(server, thread)


def _stop(server: WSGIServer, thread: Thread) -> None:
    with suppress(OSError):
        server.shutdown()
        server.server_close()
    thread.join(1)
