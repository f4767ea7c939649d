"""A consumer of a simulated channel: the real follower and heartbeats in a process of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Protocol, cast

from ferryline.grpc_server.channels import FollowedChannel
from ferryline.grpc_server.counters import VersionCounters
from ferryline.grpc_server.regression import TrialPolicy
from ferryline.grpc_server.trials import TrialJudge
from ferryline.model_runtime.follower import Follower, FollowerObserver, FollowerSettings
from ferryline.model_runtime.follower.rules import Refusal
from ferryline.model_runtime.heartbeat import HeartbeatReporter
from ferryline.model_runtime.identity import consumer_name
from ferryline.model_runtime.served import ServedModel
from ferryline.registry import Registry
from ferryline.registry.documents import ChannelEntry
from ferryline.registry.signing.seal import Seal
from tests.simulation.models import CHANNEL, MODEL
from tests.simulation.script import Script
from tests.simulation.store import Troubled
from tests.simulation.substitutes import Here


class Witness(Protocol):
    """Told of what consumers do."""

    def swapped(self, consumer: Consumer, before: ServedModel | None, served: ServedModel) -> None:
        """`served` serves."""

    def rejected(self, consumer: Consumer, refusal: Refusal) -> None:
        """A candidate was refused."""


class Consumer(FollowerObserver):
    """One process that follows the channel, and what it did.

    Attributes:
        name: what its heartbeat is called.
        served: every entry that it served, by digest.
        current: what serves.
        left: what it left by a fall-back, until it serves something newer.
        rejected: what it refused, by the digest of the entry.
        reported: since when its heartbeats name a file, by digest.
        lost_log: whether a backup took away what it had seen of the log.
    """

    def __init__(self, witness: Witness, number: int, process: Troubled) -> None:
        self.number = number
        self.process = process
        self.name = ""
        self.began_at = process.kernel.seconds
        self.served: dict[str, ChannelEntry] = {}
        self.current: ServedModel | None = None
        self.left: ServedModel | None = None
        self.rejected: dict[str, Refusal] = {}
        self.reported: dict[str, float] = {}
        self.polls = 0
        self.failure = ""
        self.lost_log = False
        self._witness = witness
        self._follower: Follower | None = None
        self._reporter: HeartbeatReporter | None = None
        self._trials: TrialJudge | None = None
        self._counters: Mapping[int, VersionCounters] = defaultdict(lambda: VersionCounters(success=1000))

    @property
    def follower(self) -> Follower:
        """The real one; there from the moment that the process runs."""
        if self._follower is None:
            raise ValueError(f"{self.process.name} has not begun")
        return self._follower

    @property
    def lives(self) -> bool:
        """Whether it runs, and began to."""
        return not self.process.dead and self._follower is not None

    def begin(self, script: Script, seal: Seal, folder: Path) -> None:
        """What the process does first."""
        Here.new_process()
        registry = Registry(self.process, actor=self.process.name, seal=seal)
        self.name = consumer_name("grpc")
        self._follower = Follower(
            registry,
            MODEL,
            CHANNEL,
            cache=folder / "cache",
            settings=FollowerSettings(poll_interval=script.poll, swap_jitter=script.jitter),
            observer=self,
            consumer=self.name,
            state=folder / "state" if script.signed else None,
        )
        self._reporter = HeartbeatReporter(
            registry, consumer=self.name, role="grpc", followers=[self._follower], interval=script.beat
        )
        counters = SimpleNamespace(of_version=self._counters.__getitem__)
        channel = SimpleNamespace(follower=self._follower, counters=counters)
        self._trials = TrialJudge(
            cast("FollowedChannel", channel), TrialPolicy(), clock=self.process.monotonic
        )
        self._follower.start()
        self._reporter.start()

    def end(self) -> None:
        """Stop as asked to."""
        if self._reporter is not None and self._follower is not None:
            self._reporter.stop()
            self._follower.stop()
        self.process.kill()

    def fail(self) -> None:
        """What serves cannot be run on half of its requests from now on; the server's own judge decides."""
        if self.lives and self.current is not None and self._trials is not None:
            self._trials.look()  # it looks four times a second, and so a trial may be over
            counters = self._counters[self.current.version]
            counters.success += 100
            counters.faults += 100
            self._trials.look()

    # --- as observer --------------------------------------------------------------------------------

    def swapped(self, served: ServedModel, seconds: float) -> None:
        before, self.current = self.current, served
        self._witness.swapped(self, before, served)
        self.served[served.entry.digest] = served.entry

    def refused(self, refusal: Refusal) -> None:
        self._witness.rejected(self, refusal)

    def failed(self, reason: str) -> None:
        self.failure = reason

    def polled(self) -> None:
        self.polls += 1
