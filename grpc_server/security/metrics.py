"""What to watch of security: refused calls, and when a certificate ends."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ferryline.grpc_server.security.setup import Security


class SecurityCollector(Collector):
    """Reads `security` when it is asked; gives nothing where nothing is set."""

    def __init__(self, security: Security) -> None:
        self._security = security

    def collect(self) -> Iterator[Metric]:
        """Every metric, as it is now."""
        if self._security.guard is not None:
            refused = CounterMetricFamily("ferry_calls_refused", "Calls refused", labels=("reason",))
            for reason, count in sorted(self._security.guard.refused.items()):
                refused.add_metric((reason,), count)
            yield refused
        if self._security.certificates is not None:
            yield GaugeMetricFamily(
                "ferry_certificate_not_after_seconds",
                "When the certificate in force ends, in Unix time",
                self._security.certificates.value.not_after.timestamp(),
            )
        if self._security.reloaded:
            yield self._reloads()

    def _reloads(self) -> Metric:
        refused = GaugeMetricFamily(
            "ferry_reload_refused",
            "Whether files have changed and are not taken because they are not in order",
            labels=("what",),
        )
        for each in self._security.reloaded:
            refused.add_metric((each.what,), float(each.refused is not None))
        return refused
