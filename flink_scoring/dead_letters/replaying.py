"""A replay: letters become records again, and every transaction says in the ledger which ones.

The order is what makes it safe. The transactional id is taken first, which ends and undoes what a replay
before us left open; only then is the ledger read, to which nobody else can add from here on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from kafka import TopicPartition

from ferryline.flink_scoring.dead_letters.ledger import (
    LedgerScope,
    Place,
    Replayed,
    Watermarks,
    decode_entry,
    encode_entry,
)
from ferryline.flink_scoring.dead_letters.letters import StoredLetter, value_left_behind
from ferryline.flink_scoring.dead_letters.reading import TopicReader, open_reader, topic_exists, topic_id
from ferryline.flink_scoring.dead_letters.selection import Selection
from ferryline.flink_scoring.dead_letters.sending import OutgoingRecord, TransactionalSender, open_sender
from ferryline.flink_scoring.dead_letters.verdicts import RECORD_OVERHEAD, Judge, Report, Verdict
from ferryline.flink_scoring.topics import message_limits
from ferryline.registry.documents import utc_now
from ferryline.registry.errors import UsageError
from ferryline.streams.deadletters import DeadLetter, replay_headers
from ferryline.streams.errors import UnknownTopicError
from ferryline.streams.kafka import ensure_topics, topic_partitions
from ferryline.streams.pipeline import Pipeline

FOREVER = {"retention.ms": "-1", "cleanup.policy": "delete"}

Observer = Callable[[int, int], None]
"""Told how many offsets are behind us, and of how many."""


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """What to replay, and how.

    Attributes:
        pipeline: whose letters.
        selection: which of them.
        destination: the topic that the records go to.
        limit: the most letters to send; None for all.
        batch: the most letters of one transaction.
        force: send what keeps failing, too.
        dry_run: send nothing.
    """

    pipeline: Pipeline
    selection: Selection
    destination: str
    limit: int | None = None
    batch: int = 500
    force: bool = False
    dry_run: bool = False

    @property
    def letters(self) -> str:
        """The dead-letter topic."""
        return self.pipeline.require_scoring().dead_letters

    @property
    def ledger(self) -> str:
        """The topic that says what was replayed."""
        return self.pipeline.require_scoring().replays

    @property
    def group(self) -> str:
        """The consumer group whose lag is what is left to replay; a destination of one's own has its own."""
        group = f"{self.pipeline.name}-dlq-replay"
        return group if self.destination == self.pipeline.source.topic else f"{group}-{self.destination}"


def plan_replay(pipeline: Pipeline, selection: Selection, destination: str | None) -> ReplayPlan:
    """A plan to the source topic, or to another one.

    Raises:
        UsageError: records would go where the job's own output goes.
    """
    scoring, wanted = pipeline.require_scoring(), destination or pipeline.source.topic
    if wanted in {scoring.topic, scoring.dead_letters, scoring.replays, pipeline.accuracy_topic}:
        raise UsageError(
            f"--to {wanted} is a topic that the pipeline writes; name one that is read, or leave it out: "
            f"records go back to {pipeline.source.topic}"
        )
    return ReplayPlan(pipeline, selection, wanted)


def run_replay(
    plan: ReplayPlan,
    bootstrap: str,
    *,
    observe: Observer = lambda _done, _all: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Report:
    """Replay what the plan says, and tell what was done.

    Raises:
        UnknownTopicError: the dead-letter topic or the destination does not exist.
        ConflictError: another replay of the same topic began meanwhile.
        UnreachableError: the broker is away or will not; what was committed stays, and a later run goes on.
    """
    partitions = len(topic_partitions(bootstrap, plan.destination))
    limits = message_limits(bootstrap, [plan.destination])
    scope = LedgerScope(topic_id(bootstrap, plan.letters), plan.destination)
    with (
        _maybe_sender(plan, bootstrap, largest=limits[plan.destination]) as sender,
        open_reader(bootstrap, group=plan.group, batch=plan.batch) as reader,
        open_reader(bootstrap) as originals,
    ):
        replayed = read_ledger(reader, bootstrap, plan.ledger, scope)
        spans = reader.spans(plan.letters, reader.committed(plan.letters))
        run = _Run(plan, scope, Judge(plan.selection, replayed, plan.force), originals)
        run.partitions, run.largest = partitions, limits[plan.destination]
        ends = {part.partition: span.stop for part, span in spans.items()}
        total, done = sum(map(len, spans.values())), 0
        for batch in reader.letters(spans):
            run.take(batch)
            if sender is not None:
                run.commit(sender, reader.group_metadata)
            done += len(batch)
            observe(done, total)
            if run.is_full:
                break
            if stopping():
                run.report.stopped = True
                break
        else:
            run.marks.pass_ends(ends)
        if sender is not None:
            run.commit(sender, reader.group_metadata, marks_alone=True)
    return run.report


def read_ledger(reader: TopicReader, bootstrap: str, topic: str, scope: LedgerScope) -> Replayed:
    """What was replayed so far.

    Raises:
        MalformedRecordError: the ledger holds something else; nothing may be replayed on a guess.
    """
    replayed = Replayed()
    if topic_exists(bootstrap, topic):
        for messages in reader.batches(reader.spans(topic)):
            for message in messages:
                replayed.add(decode_entry(message.value, scope))
    return replayed


@contextmanager
def _maybe_sender(plan: ReplayPlan, bootstrap: str, *, largest: int) -> Iterator[TransactionalSender | None]:
    if plan.dry_run:
        yield None
        return
    ensure_topics(bootstrap, {plan.ledger: 1}, FOREVER)
    # one id for all replays of this topic: the newest shuts out the others, wherever they send to
    with open_sender(bootstrap, plan.ledger, largest=largest) as sender:
        yield sender


@dataclass(slots=True)
class _Run:
    """A replay that is under way: what it has decided, and what waits for the next transaction."""

    plan: ReplayPlan
    scope: LedgerScope
    judge: Judge
    originals: TopicReader
    partitions: int = 1
    largest: int = 0
    report: Report = field(default_factory=Report)
    marks: Watermarks = field(default_factory=Watermarks)
    outgoing: list[OutgoingRecord] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    committed: dict[int, int] = field(default_factory=dict)

    @property
    def is_full(self) -> bool:
        """Whether as many were sent as were asked for."""
        return self.plan.limit is not None and self.report.of(Verdict.REPLAYED) >= self.plan.limit

    def take(self, batch: Sequence[StoredLetter]) -> None:
        """Decide about the letters, until there are as many as were asked for."""
        for stored in batch:
            if self.is_full:
                return
            verdict = self._decide(stored)
            self.report.add(verdict, stored)
            self.marks.tell((stored.partition, stored.offset), settled=verdict.settles)

    def commit(self, sender: TransactionalSender, group: object, *, marks_alone: bool = False) -> None:
        """Send what waits, with the ledger's entry and the group's offsets, in one transaction.

        Args:
            sender: commits them.
            group: the metadata of the consumer group.
            marks_alone: commit the group's offsets where nothing waits, too.
        """
        marks = self.marks.marks()
        if not self.outgoing and not (marks_alone and marks != self.committed):
            return
        records = list(self.outgoing)
        if self.outgoing:
            entry = encode_entry(self.scope, self.places, utc_now())
            records.append(OutgoingRecord(self.plan.ledger, None, entry))
        offsets = {TopicPartition(self.plan.letters, number): mark for number, mark in marks.items()}
        sender.commit(records, offsets, group)
        self.committed = dict(marks)
        self.outgoing.clear()
        self.places.clear()

    def _decide(self, stored: StoredLetter) -> Verdict:
        verdict = self.judge(stored)
        if verdict is not Verdict.REPLAYED or stored.letter is None:
            return verdict
        value = stored.letter.value
        if value_left_behind(stored.letter):
            value = original_value(self.originals, stored.letter)
            if value is None:
                return Verdict.VALUE_LOST
        record = revived(stored.letter, value, self.plan, self.partitions, now=utc_now())
        if record.size + RECORD_OVERHEAD > self.largest:
            return Verdict.TOO_LARGE
        if not self.plan.dry_run:
            self.outgoing.append(record)
            self.places.append((stored.partition, stored.offset))
        return verdict


def original_value(reader: TopicReader, letter: DeadLetter) -> bytes | None:
    """The value that the record has in its own topic, None where that is gone or is another one's."""
    try:
        message = reader.at(letter.topic, letter.partition, letter.offset)
    except UnknownTopicError:
        return None
    if message is None or message.key != letter.key:
        return None
    if letter.timestamp_ms not in {None, message.timestamp}:
        return None  # a topic that was made anew has other records at the same offsets
    value: bytes | None = message.value
    return value


def revived(
    letter: DeadLetter, value: bytes | None, plan: ReplayPlan, partitions: int, *, now: datetime
) -> OutgoingRecord:
    """The record that a letter was.

    It goes to its own partition of its own topic, and elsewhere to that of its key. It keeps its Kafka
    timestamp where the pipeline takes the event time from it; elsewhere it gets that of its sending, because
    a topic's retention goes by timestamps and may remove an old one before it is read.
    """
    home = plan.destination == letter.topic and letter.partition < partitions
    moment = letter.timestamp if plan.pipeline.source.event_time is None else None
    keeps = moment is not None and 0 <= moment.timestamp() <= now.timestamp()
    return OutgoingRecord(
        topic=plan.destination,
        key=letter.key,
        value=value,
        headers=replay_headers(letter),
        partition=letter.partition if home else None,
        timestamp_ms=letter.timestamp_ms if keeps else None,
    )
