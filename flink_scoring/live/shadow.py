"""How the shadow compares with what serves, in Flink's metrics."""

from __future__ import annotations

from ferryline.flink_scoring.live.scoring import FollowedModel, MetricGroup
from ferryline.flink_scoring.live.windows import RecentSums, percent
from ferryline.flink_scoring.shadowing.trial import ShadowTally


class ShadowMetrics:
    """Counts what became of the shadow's answers.

    Args:
        group: Flink's metric group of the function.
        follower: who follows the shadow's channel.
    """

    def __init__(self, group: MetricGroup, follower: FollowedModel) -> None:
        self._compared = group.counter("shadow_compared")
        self._agreed = group.counter("shadow_agreed")
        self._failed = group.counter("shadow_failed")
        self._skipped = group.counter("shadow_skipped")
        self._recent = RecentSums(2)
        group.gauge("shadow_agreement", lambda: percent(*self._recent.sums()))
        group.gauge("shadow_version", lambda: follower.current.version if follower.current else -1)
        group.gauge("shadow_generation", lambda: follower.current.generation if follower.current else -1)

    def batch(self, tally: ShadowTally) -> None:
        """Count a batch."""
        self._compared.inc(tally.compared)
        self._agreed.inc(tally.agreed)
        self._failed.inc(tally.failed)
        self._skipped.inc(tally.skipped)
        self._recent.add(tally.agreed, tally.compared)
