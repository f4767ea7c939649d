"""The replay: samples at a steady rate, now and then a bad one, and what became of them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import orjson

from ferryline.deploy.feed.datasets import Dataset
from ferryline.deploy.feed.faults import FAULT_HEADER, fault_kinds, spoil
from ferryline.deploy.feed.producer import FeedProducer
from ferryline.deploy.feed.schedule import Pacer

_TICK = 0.005  # seconds; several records share one at high rates


@dataclass(slots=True)
class ReplayReport:
    """What a replay did; `faults` counts the bad records among those sent, by kind."""

    dataset: str
    topic: str
    sent: int = 0
    acknowledged: int = 0
    failed: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    per_second: float = 0.0


class Replay:
    """Sends the samples of `dataset` that `order` names.

    Args:
        dataset: the samples.
        order: indices of samples.
        rate: records per second.
        faults: share of records that are bad, in turns of each kind.
        seed: of the choice of bad ones.
    """

    def __init__(
        self, dataset: Dataset, order: Iterator[int], *, rate: float, faults: float = 0.0, seed: int = 0
    ) -> None:
        self._dataset = dataset
        self._order = order
        self._rate = rate
        self._share = faults
        self._chance = np.random.default_rng(seed)
        self._kinds = fault_kinds(dataset.samples[0])
        self._faults: Counter[str] = Counter()

    def run(
        self,
        producer: FeedProducer,
        stop: threading.Event,
        on_sent: Callable[[int], None] = lambda _sent: None,
    ) -> None:
        """Send until the order ends or `stop` is set; `on_sent` is told the total after each burst."""
        pacer = Pacer(self._rate, now=time.monotonic())
        while not stop.is_set():
            due = pacer.due(time.monotonic())
            for _ in range(due):
                index = next(self._order, None)
                if index is None:
                    return
                self._send(producer, index)
            pacer.sent(due)
            on_sent(producer.sent)
            stop.wait(max(_TICK, pacer.pause(time.monotonic())))

    def report(self, producer: FeedProducer, *, topic: str, seconds: float) -> ReplayReport:
        """What was sent in `seconds`, and what arrived."""
        return ReplayReport(
            dataset=self._dataset.name,
            topic=topic,
            sent=producer.sent,
            acknowledged=producer.acknowledged,
            failed=producer.failed,
            faults=dict(self._faults),
            seconds=round(seconds, 3),
            per_second=round(producer.sent / seconds, 1) if seconds else 0.0,
        )

    def _send(self, producer: FeedProducer, index: int) -> None:
        document = self._dataset.record(index, datetime.now(UTC))
        key = str(index).encode()
        if self._share and self._chance.random() < self._share:
            kind = self._kinds[self._faults.total() % len(self._kinds)]
            self._faults[kind] += 1
            producer.send(key, spoil(document, kind), [(FAULT_HEADER, kind.encode())])
        else:
            producer.send(key, orjson.dumps(document))
