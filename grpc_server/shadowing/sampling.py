"""What the event loop does for a shadow: draws requests by lot, and lets them wait with their answers.

It does no more than that, because every answer pays for it; what is drawn is run again on another thread.
"""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Mapping

import structlog

from ferryline.grpc_server.channels import FollowedChannel
from ferryline.grpc_server.datatypes import Array, held_bytes
from ferryline.grpc_server.offering import Offering
from ferryline.grpc_server.shadowing.backlog import Backlog
from ferryline.grpc_server.shadowing.comparison import is_measured
from ferryline.grpc_server.shadowing.counters import PairCounters
from ferryline.grpc_server.shadowing.policy import BacklogLimits, ShadowPolicy
from ferryline.model_runtime.session import OnnxSession
from ferryline.registry.contract import contract_break
from ferryline.registry.documents import Manifest

KEPT_PAIRS = 16
"""Pairs of versions that are counted; each is a handful of time series."""

log = structlog.get_logger(__name__)


class Sample:
    """A request that was drawn: with its answer, once there is one, it waits to be run again.

    It does not keep the shadow's version alive: a backlog that is long must not hold the versions of an hour.

    Args:
        pair: the two versions.
        session: the shadow's.
        feeds: the request's inputs.
        backlog: where it is to wait.
    """

    __slots__ = ("_backlog", "answer_ns", "feeds", "pair", "results", "session", "size")

    def __init__(
        self,
        pair: PairCounters,
        session: weakref.ref[OnnxSession],
        feeds: dict[str, Array],
        backlog: Backlog[Sample],
    ) -> None:
        self.pair = pair
        self.session = session
        self.feeds = feeds
        self.results: dict[str, Array] = {}
        self.answer_ns = 0
        self.size = 0
        self._backlog = backlog

    def answered(self, results: dict[str, Array], run_ns: int) -> None:
        """Let it wait, if there is room; to be called once its answer is counted. It never raises.

        Args:
            results: the outputs that were answered.
            run_ns: what the run took, in nanoseconds.
        """
        try:
            self.results, self.answer_ns = results, run_ns
            self.size = held_bytes((*self.feeds.values(), *results.values()))
            if not self._backlog.put(self):
                self.pair.crowded_out += 1
        except Exception:
            log.exception("unexpected fault while a request was handed to a shadow")


class Shadow:
    """A channel whose version runs again what its model's first channel answers.

    Args:
        policy: of how many requests.
        channel: the channel; something follows it, whether requests can reach it or not.
        limits: what may wait.
        lot: gives numbers from 0 up to 1, evenly.

    Attributes:
        pairs: what is counted, by the versions that answered and that ran again, the newest pair last.
    """

    __slots__ = ("_lot", "_share", "backlog", "channel", "pairs", "policy")

    def __init__(
        self,
        policy: ShadowPolicy,
        channel: FollowedChannel,
        limits: BacklogLimits | None = None,
        lot: Callable[[], float] = random.random,
    ) -> None:
        self.policy = policy
        self.channel = channel
        self.backlog: Backlog[Sample] = Backlog(limits or BacklogLimits())
        self.pairs: Mapping[tuple[int, int], PairCounters] = {}
        self._share = policy.share
        self._lot = lot

    def sample(self, offering: Offering, feeds: dict[str, Array]) -> Sample | None:
        """The request with `feeds` that `offering` is about to answer, if it is to be run again.

        None for those that are not drawn, and where there is nothing to compare with: no version serves in
        the shadow's channel, or the same one does. It never raises.
        """
        if self._share < 1.0 and self._lot() >= self._share:
            return None
        shadow = self.channel.current
        if shadow is None:
            return None
        try:
            version, shadow_version = offering.served.manifest.version, shadow.served.manifest.version
            if version == shadow_version:
                return None
            pair = self.pairs.get((version, shadow_version)) or self._new_pair(offering, shadow)
        except Exception:
            log.exception("unexpected fault while a request was drawn for a shadow")
            return None
        if pair.broken is not None:
            pair.incomparable += 1
            return None
        return Sample(pair, weakref.ref(shadow.session), feeds, self.backlog)

    def _new_pair(self, offering: Offering, shadow: Offering) -> PairCounters:
        left, right = offering.served.manifest, shadow.served.manifest
        pair = _pair(left, right)
        kept = list(self.pairs.items())[1 - KEPT_PAIRS :]
        self.pairs = {**dict(kept), (left.version, right.version): pair}
        return pair


def _pair(answering: Manifest, shadow: Manifest) -> PairCounters:
    return PairCounters(
        answering.version,
        shadow.version,
        broken=contract_break(answering, shadow),
        measured=frozenset(spec.name for spec in answering.outputs if is_measured(spec)),
    )
