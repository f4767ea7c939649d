"""Everything around a trainer: Kafka, the store, the disk and the people, and what a script does to them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import orjson
from kafka import OffsetAndMetadata, TopicPartition

from ferryline.registry import Registry, keys
from ferryline.registry.documents import ModelFacts
from ferryline.registry.errors import FerryError
from ferryline.registry.stores.memory import MemoryStore
from tests.faulty_store import Fault, FaultyStore, Observed, Verb
from tests.simulation.training.fake_consumer import FakeConsumer
from tests.simulation.training.fake_log import Broker
from tests.simulation.training.learning import FACTS
from tests.simulation.training.lockstep import Clock, Lockstep
from tests.simulation.training.script import Act, History, Step
from tests.simulation.training.truth import TOPIC, Records

MODEL = "model"
CALM_TICKS, CALM_SECONDS = 5, 45.0
"""Polls without a record after the last step, and the time that passes at each: longer than any pause of the
trainer's."""
_BUSY_TICKS = 100
_BUSY_SECONDS = 0.3


class World:
    """The world of one history.

    Attributes:
        process: the trainer's process that runs, if one does.
        stop: set to end it in peace.
        consumer: its client of Kafka.
        down_for: steps that happen before the next one begins.
        saved: what its state file holds; None where there is none.
        events: what it logged: level, event, fields.
        findings: what is wrong, found while it happened.
        facts: of the models of others, which must have the contract of the trainer's; None before its first.
        found_records: whether the last poll gave any.
        done: whether the history has come to its end.
        beginnings: by topic and partition, where a learner that starts now should begin.
        changed: whether a topic was made anew or cut back since the learner began.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.clock = Clock()
        self.choices = random.Random(history.seed ^ 0x5EED)  # noqa: S311 - an order of threads, no secret
        self.broker = Broker()
        self.broker.create(TOPIC, history.partitions)
        self.records = Records(self.broker)
        self.memory = MemoryStore(f"history-{history.seed}")
        self.faults = _Faults()
        self.faulty = FaultyStore(self.memory, self.faults)  # type: ignore[arg-type]
        self.store = _Pointed(self.faulty, self)
        self.operator = Registry(self.memory, actor="operator")
        self.process: Lockstep | None = None
        self.stop: Any = None
        self.saved: Any = None
        self.events: list[tuple[str, str, dict[str, Any]]] = []
        self.findings: list[str] = []
        self.done = False
        self.changed = False
        self.gate_faults = self.export_faults = self.save_faults = 0
        self.facts: ModelFacts | None = None if history.real else FACTS
        self.told: Callable[[str, dict[str, Any]], None] = lambda _event, _fields: None
        self.beginnings: dict[tuple[uuid.UUID, int], int] = {}
        self._steps = list(reversed(history.steps))
        self.down_for = 0
        self.consumer: FakeConsumer | None = None
        self._cuts: list[tuple[int, int, int]] = []
        self._kill_in: int | None = None
        self.found_records = False
        self._calm_ticks = -1
        self._busy_ticks = 0

    # --- called from the process ---

    def tick(self) -> None:
        """A poll begins: the next step happens."""
        self.clock.now += CALM_SECONDS if self.is_calm else _BUSY_SECONDS
        if self._steps:
            self._do(self._steps.pop())
        elif not self.is_calm:
            self._calm_down()
        elif self.found_records and self._busy_ticks < _BUSY_TICKS:
            self._busy_ticks += 1
        elif self._calm_ticks < CALM_TICKS or self.process is None:
            self._calm_ticks += 1
        else:
            self.done = True
            self.stop.set()
        self.found_records = False

    @property
    def is_calm(self) -> bool:
        """Whether all steps were done and nothing fails any more."""
        return self._calm_ticks >= 0

    def at_point(self, _name: str) -> None:
        """A point was passed; the process may be killed here."""
        if self._kill_in is not None and self.process is not None:
            self._kill_in -= 1
            if self._kill_in < 0:
                self._kill_in = None
                self.process.killed = True

    def end_process(self) -> None:
        """The process has ended: a cut that it did not notice the next one cannot notice."""
        for number, cut_at, end in self._cuts:
            at, log = self._reached(number), self.records.current().get(number)
            if at is not None and log is not None and at.leader_epoch < log.epoch and at.offset > cut_at:
                self.records.note_unseen_cut(number, cut_at, end)
        self._cuts.clear()
        self.process = self.consumer = None

    def _reached(self, partition: int) -> OffsetAndMetadata | None:
        """The process' position in a partition, if it knows the leader's epoch of what it read there."""
        return self.consumer.reached(TopicPartition(TOPIC, partition)) if self.consumer else None

    def pass_while_down(self) -> None:
        """Let the steps happen that happen before the next process begins."""
        while self.down_for > 0:
            self.down_for -= 1
            self.tick()

    def point(self, name: str) -> None:
        """Pass a point of the process."""
        if self.process is not None:
            self.process.point(name)

    def log(self, level: str, event: str, fields: dict[str, Any]) -> None:
        """The trainer said something."""
        self.events.append((level, event, fields))
        self.told(event, fields)

    def fail_gate(self) -> None:
        """Raise what a full disk makes of judging a file, where that is due."""
        if self.gate_faults > 0:
            self.gate_faults -= 1
            raise OSError(28, "No space left on device")

    def fail_export(self) -> None:
        """Raise what a full disk makes of an export, where that is due."""
        if self.export_faults > 0:
            self.export_faults -= 1
            raise OSError(28, "No space left on device")

    def note_beginnings(self) -> None:
        """A learner that knows nothing begins here."""
        self.changed = False
        latest = self.history.start == "latest"
        topic = self.broker.topics.get(TOPIC)
        self.beginnings = {
            (topic.ident, number): log.stable_end if latest else log.start
            for number, log in (enumerate(topic.partitions) if topic else ())
        }

    def fail_save(self, failure: Callable[[OSError], Exception]) -> None:
        """Raise what a full disk makes of a save, where that is due."""
        if self.save_faults > 0:
            self.save_faults -= 1
            raise failure(OSError(28, "No space left on device"))

    # --- steps ---

    def _calm_down(self) -> None:
        self._calm_ticks = 0
        self._kill_in = None
        self.gate_faults = self.export_faults = self.save_faults = 0
        self.broker.down = self.faulty.down = False
        self.faults.clear()
        self.faulty.settle()
        if TOPIC not in self.broker.topics:
            self.broker.create(TOPIC, 1)
        for number, log in self.records.current().items():
            for transaction in list(log.open_transactions):
                log.finish(transaction, commit=True)
            self.records.append(number, ["good"] * 2)
        self._end_canary()
        with suppress(FerryError):
            self.operator.release(MODEL)

    def _do(self, step: Step) -> None:
        _ACTS[step.act](self, step)

    def _append(self, step: Step) -> None:
        self.records.append(step.number(0), [step.words[1]] * step.number(2))

    def _transaction(self, step: Step) -> None:
        log = self.broker.partition(TOPIC, step.number(0))
        if log is None:
            return
        transaction = self.records.begin_transaction()
        self.records.append(step.number(0), ["good"] * step.number(1), transaction)
        if step.act is not Act.OPENED:
            log.finish(transaction, commit=step.act is Act.COMMITTED)

    def _finish(self, step: Step) -> None:
        log = self.broker.partition(TOPIC, step.number(0))
        for transaction in list(log.open_transactions) if log else []:
            log.finish(transaction, commit=True)

    def _cut(self, step: Step) -> None:
        log = self.broker.partition(TOPIC, step.number(0))
        if log is None:
            return
        if step.act is Act.RETENTION:
            self.records.remove(log.retain_from(min(log.end - step.number(1), log.stable_end)), "retention")
        elif step.act is Act.COMPACTION:
            self.records.remove(log.compact([e.offset for e in log.entries][::2]), "compaction")
        else:
            self.changed = True
            number, end = step.number(0), log.end
            self.records.remove(log.truncate(end - step.number(1)), "truncation")
            if self._reached(number) is None:
                self.records.note_unseen_cut(number, log.end, end)
            else:
                self._cuts.append((number, log.end, end))

    def _add_partition(self, _step: Step) -> None:
        topic = self.broker.topics.get(TOPIC)
        if topic is not None:
            topic.partitions.append(type(topic.partitions[0])())
            self.records.append(len(topic.partitions) - 1, ["good"] * 2)

    def _delete_topic(self, _step: Step) -> None:
        self.changed = True
        for log in self.records.current().values():
            self.records.remove(log.entries, "deletion")
        if TOPIC in self.broker.topics:
            self.broker.delete(TOPIC)

    def _topic_anew(self, step: Step) -> None:
        self._delete_topic(step)
        self.broker.create(TOPIC, step.number(0))
        for number in range(step.number(0)):
            self.records.append(number, ["good"] * step.number(1))

    def _kafka(self, step: Step) -> None:
        self.broker.down = step.act is Act.KAFKA_DOWN

    def _store(self, step: Step) -> None:
        self.faulty.down = step.act is Act.STORE_DOWN

    def _store_fault(self, step: Step) -> None:
        self.faults.plan(Fault[step.words[0]], after=step.number(1))

    def _gate_fault(self, step: Step) -> None:
        self.gate_faults += step.number(0)

    def _export_fault(self, step: Step) -> None:
        self.export_faults += step.number(0)

    def _save_fault(self, step: Step) -> None:
        self.save_faults += step.number(0)

    def _kill(self, step: Step) -> None:
        self._kill_in, self.down_for = step.number(0), step.number(1)

    def _restart(self, step: Step) -> None:
        self.down_for = step.number(0)
        if self.process is not None:
            self.stop.set()

    def _wait(self, step: Step) -> None:
        self.clock.now += step.number(0)

    def _foreign(self, step: Step) -> None:
        if self.facts is None:
            return
        with suppress(FerryError):
            data = orjson.dumps({"foreign": self.choices.random()})
            version = self.operator.publish(MODEL, data, self.facts).version
            self.operator.promote(MODEL, version, canary=10 if step.act is Act.CANARY else None)

    def _canary_ended(self, _step: Step) -> None:
        self._end_canary()

    def _end_canary(self) -> None:
        with suppress(FerryError):
            if self.operator.channel(MODEL).require_head().canary:
                self.operator.rollback(MODEL)
                self.operator.release(MODEL)

    def _hold(self, _step: Step) -> None:
        with suppress(FerryError):
            self.operator.hold(MODEL)

    def _release(self, _step: Step) -> None:
        with suppress(FerryError):
            self.operator.release(MODEL)

    def _damage(self, step: Step) -> None:
        head = self.operator.channel(MODEL).head()
        if head is None:
            return
        key = f"{keys.versions(MODEL)}{head.version:010}.json"
        self.memory.delete(key)
        if step.act is Act.DAMAGED:
            self.memory.put(key, b"{not a manifest")


_ACTS: dict[Act, Callable[[World, Step], None]] = {
    Act.APPEND: World._append,
    Act.COMMITTED: World._transaction,
    Act.ABORTED: World._transaction,
    Act.OPENED: World._transaction,
    Act.FINISHED: World._finish,
    Act.RETENTION: World._cut,
    Act.COMPACTION: World._cut,
    Act.TRUNCATION: World._cut,
    Act.PARTITION_ADDED: World._add_partition,
    Act.TOPIC_ANEW: World._topic_anew,
    Act.TOPIC_DELETED: World._delete_topic,
    Act.KAFKA_DOWN: World._kafka,
    Act.KAFKA_UP: World._kafka,
    Act.STORE_DOWN: World._store,
    Act.STORE_UP: World._store,
    Act.STORE_FAULT: World._store_fault,
    Act.GATE_FAULT: World._gate_fault,
    Act.EXPORT_FAULT: World._export_fault,
    Act.SAVE_FAULT: World._save_fault,
    Act.KILL: World._kill,
    Act.RESTART: World._restart,
    Act.WAIT: World._wait,
    Act.HOLD: World._hold,
    Act.RELEASE: World._release,
    Act.FOREIGN: World._foreign,
    Act.CANARY: World._foreign,
    Act.CANARY_ENDED: World._canary_ended,
    Act.DAMAGED: World._damage,
    Act.VANISHED: World._damage,
}


class _Pointed(Observed):
    """The store, where the process may be killed before and after each request."""

    def __init__(self, inner: FaultyStore, world: World) -> None:
        super().__init__(inner)
        self._world = world

    def before(self, verb: Verb, key: str) -> None:
        self._world.point(f"store.{verb}")

    def after(self, verb: Verb, key: str) -> None:
        self._world.point(f"store.{verb}.done")


class _Faults:
    """The faults of the store's next requests; more can be planned at any time."""

    def __init__(self) -> None:
        self._planned: list[Fault] = []

    def plan(self, fault: Fault, *, after: int) -> None:
        """Let `fault` befall the request that comes after so many others."""
        self._planned += [Fault.NONE] * max(0, after + 1 - len(self._planned))
        self._planned[after] = fault

    def clear(self) -> None:
        """Plan no more."""
        self._planned.clear()

    def __iter__(self) -> Iterator[Fault]:
        return self

    def __next__(self) -> Fault:
        if not self._planned:
            raise StopIteration
        return self._planned.pop(0)
