"""One look at everything that the demo shows."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

import httpx
from prometheus_client.parser import text_string_to_metric_families

from ferryline.deploy.demo.caller import Caller
from ferryline.deploy.demo.streamwatch import StreamWatch
from ferryline.deploy.demo.tally import ConsumerTally, Tally
from ferryline.registry.catalogue import Registry
from ferryline.registry.documents import ChannelEntry
from ferryline.registry.errors import StoreUnreachableError

RATE_SECONDS = 5.0
"""How far back the rate of records looks."""


@dataclass(slots=True)
class Served:
    """What a consumer serves, as its answers tell."""

    generation: int | None = None
    version: int | None = None
    generations: int = 0
    last_swap_seconds: float | None = None


@dataclass(slots=True)
class Snapshot:
    """The numbers of one moment; what is not known yet is None."""

    seconds: float = 0.0
    records_in: int = 0
    records_per_second: float = 0.0
    scored: int = 0
    dead: int = 0
    training_version: int | None = None
    accuracy: float | None = None
    head: ChannelEntry | None = None
    flink: Served = field(default_factory=Served)
    server: Served = field(default_factory=Served)
    requests: int = 0
    failed_requests: int = 0
    accuracies: dict[int, tuple[int, float | None]] = field(default_factory=dict)


class Observer:
    """Takes snapshots.

    Args:
        registry: the registry.
        model: the model.
        channel: its channel.
        watch: counts the topics.
        caller: calls the server.
        trainer_metrics: URL of the trainer's metrics.
    """

    def __init__(
        self,
        registry: Registry,
        model: str,
        channel: str,
        *,
        watch: StreamWatch,
        caller: Caller,
        trainer_metrics: str,
    ) -> None:
        self._channel = registry.channel(model, channel)
        self._watch = watch
        self._caller = caller
        self._trainer_metrics = trainer_metrics
        self._started = time.monotonic()
        self._recent: deque[tuple[float, int]] = deque()
        self.history: list[ChannelEntry] = []

    def look(self) -> Snapshot:
        """The present state of everything."""
        self._follow_channel()
        now = time.monotonic()
        shot = Snapshot(seconds=now - self._started, head=self.history[-1] if self.history else None)
        self._add_stream(shot, now)
        self._add_training(shot)
        self._add_calls(shot)
        return shot

    def _follow_channel(self) -> None:
        try:
            newest = self._channel.head()
            known = self.history[-1].generation if self.history else 0
            if newest is not None and newest.generation > known:
                self.history = list(self._channel.history())
        except StoreUnreachableError:
            # the view shows what it knew; the consumers' own metrics tell that the store is away
            return

    def _add_stream(self, shot: Snapshot, now: float) -> None:
        shot.records_in = self._watch.records_in
        self._recent.append((now, shot.records_in))
        while now - self._recent[0][0] > RATE_SECONDS:
            self._recent.popleft()
        then, before = self._recent[0]
        shot.records_per_second = (shot.records_in - before) / (now - then) if now > then else 0.0

        def take(tally: Tally) -> None:
            shot.scored, shot.dead = tally.scored, tally.dead
            shot.flink = self._served(tally.flink)
            shot.accuracies = {
                number: (version.scored, version.accuracy)
                for number, version in sorted(tally.versions.items())
            }

        self._watch.read(take)

    def _served(self, tally: ConsumerTally) -> Served:
        if tally.newest is None:
            return Served()
        latencies = tally.latencies(self.history)
        generation, version = tally.newest
        return Served(generation, version, len(tally.first_seen), latencies.get(generation))

    def _add_calls(self, shot: Snapshot) -> None:
        tally = self._caller.tally
        shot.requests, shot.failed_requests = tally.answered + tally.failed, tally.failed
        shot.server = self._served(tally.server)

    def _add_training(self, shot: Snapshot) -> None:
        values = self._scrape()
        shot.accuracy = values.get("ferry_trainer_accuracy")
        version = values.get("ferry_trainer_version")
        shot.training_version = int(version) + 1 if version is not None else None

    def _scrape(self) -> dict[str, float]:
        try:
            text = httpx.get(self._trainer_metrics, timeout=2).raise_for_status().text
        except httpx.HTTPError:
            return {}
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
