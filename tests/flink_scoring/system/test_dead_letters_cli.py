"""`ferry-dlq` against a real broker: what it shows, and that each letter goes back exactly once."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from ferryline.deploy.stack.local import Addresses
from ferryline.flink_scoring.dead_letters.cli import main
from ferryline.flink_scoring.dead_letters.sending import OutgoingRecord, open_sender
from ferryline.registry.errors import ConflictError
from ferryline.streams.deadletters import DeadLetter, dead_letter_headers
from ferryline.streams.kafka import admin_client, ensure_topics
from ferryline.streams.pipeline import Pipeline, parse_pipeline
from tests.flink_scoring.commands import Ended, run_command
from tests.support.waiting import DEADLINE, wait_for

pytestmark = pytest.mark.early

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)


@dataclass
class Desk:
    """A pipeline's topics on a broker, and the command at its side."""

    kafka: str
    file: Path
    pipeline: Pipeline

    @property
    def source(self) -> str:
        return self.pipeline.source.topic

    @property
    def dead_letters(self) -> str:
        return self.pipeline.require_scoring().dead_letters

    def letter(self, number: int, reason: str = "wrong_length", **fields: Any) -> DeadLetter:
        plain = {"key": f"k{number}".encode(), "value": f"v{number}".encode(), "headers": (("trace", b"7"),)}
        where = {"topic": self.source, "partition": number % 2, "offset": number}
        told = {"reason": reason, "detail": "why", "pipeline": self.pipeline.name, "timestamp": MOMENT}
        return DeadLetter(**{**plain, **where, **told, **fields})

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        with self.producer() as producer:
            for letter in letters:
                headers = dead_letter_headers(letter)
                place = {"key": letter.key, "partition": letter.partition}
                producer.send(self.dead_letters, value=letter.value, headers=headers, **place)

    @contextlib.contextmanager
    def producer(self) -> Iterator[Any]:
        producer = KafkaProducer(bootstrap_servers=self.kafka, acks="all", enable_idempotence=True)
        try:
            yield producer
            producer.flush(timeout=DEADLINE)
        finally:
            producer.close(timeout=5)

    def start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """The command as a process of its own, for what signals and other processes do to it."""
        line = [
            sys.executable,
            "-m",
            "ferryline.flink_scoring.dead_letters.cli",
            *self._words(name, *arguments),
        ]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, name: str, *arguments: str, code: int = 0) -> Ended:
        """The command in this process."""
        ended = run_command(main, "ferry-dlq", *self._words(name, *arguments))
        assert ended.code == code, ended.err
        assert "Traceback" not in ended.err
        return ended

    def ask(self, name: str, *arguments: str, code: int = 0) -> Any:
        ended = self.run(name, *arguments, "-o", "json", code=code)
        return json.loads(ended.out) if ended.out else ended.err

    def _words(self, name: str, *arguments: str) -> list[str]:
        return [name, str(self.file), "--kafka", self.kafka, *arguments]

    def outcomes(self, *arguments: str, code: int = 0) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for line in self.ask("replay", *arguments, code=code)["outcomes"]:
            counts[line["outcome"]] += line["letters"]
        return dict(counts)

    def sent(self, topic: str | None = None) -> list[Any]:
        """What is committed in the source topic, or another."""
        with KafkaConsumer(
            bootstrap_servers=self.kafka, isolation_level="read_committed", auto_offset_reset="earliest"
        ) as consumer:
            parts = [TopicPartition(topic or self.source, number) for number in range(2)]
            consumer.assign(parts)
            ends, found = consumer.end_offsets(parts), []

            def is_read() -> bool:
                found.extend(item for items in consumer.poll(timeout_ms=200).values() for item in items)
                return all(consumer.position(part) >= ends[part] for part in parts)

            wait_for(is_read, "the topic to be read to its end", pause=0)
        return found

    def written(self) -> int:
        """How many offsets of the source topic are used, committed or not."""
        with KafkaConsumer(bootstrap_servers=self.kafka) as consumer:
            parts = [TopicPartition(self.source, number) for number in range(2)]
            return sum(consumer.end_offsets(parts).values())

    def wait_for_transaction(self) -> None:
        """Return when another record is committed in the source topic."""
        with KafkaConsumer(bootstrap_servers=self.kafka, isolation_level="read_committed") as consumer:
            parts = [TopicPartition(self.source, number) for number in range(2)]
            before = consumer.end_offsets(parts)
            wait_for(lambda: consumer.end_offsets(parts) != before, "a transaction", pause=0)

    def lag(self) -> int:
        """What Kafka's own tools call the lag of the replay's group."""
        group = f"{self.pipeline.name}-dlq-replay"
        with KafkaConsumer(bootstrap_servers=self.kafka, group_id=group) as consumer:
            parts = [TopicPartition(self.dead_letters, number) for number in range(2)]
            ends = consumer.end_offsets(parts)
            return sum(ends[part] - (consumer.committed(part) or 0) for part in parts)


@pytest.fixture
def desk(kafka: Addresses, pipeline_text: Callable[[str], str], tmp_path: Path) -> Desk:
    text = pipeline_text(f"dlq-{uuid.uuid4().hex[:8]}")
    file = tmp_path / "digits.toml"
    file.write_text(text)
    pipeline = parse_pipeline(text, where="test")
    desk = Desk(kafka.kafka, file, pipeline)
    ensure_topics(kafka.kafka, {desk.source: 2, desk.dead_letters: 2, f"{desk.source}.repair": 2})
    return desk


def test_letters_are_counted_listed_and_shown(desk: Desk) -> None:
    desk.bury([desk.letter(0), desk.letter(2, value=b"\xff\x00"), desk.letter(1, "no_value", value=None)])
    with desk.producer() as producer:
        producer.send(desk.dead_letters, value=b"no letter", partition=1)
    found = {line["reason"]: line for line in desk.ask("summary")["reasons"]}
    assert {reason: (line["letters"], line["waiting"]) for reason, line in found.items()} == {
        "wrong_length": (2, 2),
        "no_value": (1, 1),
    }
    listed = desk.ask("list", "--reason", "wrong_length")
    assert [(item["partition"], item["offset"], item["value"]) for item in listed] == [
        (0, 0, {"text": "v0"}),
        (0, 1, {"hex": "ff00"}),
    ]
    assert len(desk.ask("list", "--limit", "1")) == 1
    shown = desk.ask("show", "0:0")
    assert shown["source"] == {"topic": desk.source, "partition": 0, "offset": 0}
    assert shown["headers"] == [{"name": "trace", "value": {"text": "7"}}]
    assert datetime.fromisoformat(shown["timestamp"]) == MOMENT
    assert desk.run("show", "0:1", "--raw").out == b"\xff\x00"
    assert "has no record at 0:99" in desk.ask("show", "0:99", code=3)
    assert "is no dead letter" in desk.ask("show", "1:1", code=3)


def test_tables_are_for_people(desk: Desk) -> None:
    desk.bury([desk.letter(0), desk.letter(2, value=b"\xff\x00ab")])
    for arguments, expected in (
        (["summary"], ["2 dead letters", "wrong_length"]),
        (["list"], ["0:0", "wrong_length", f"{desk.source}[0]@2"]),
        (["show", "0:1"], ["header trace", "ff 00 61 62", "..ab"]),
        (["replay", "--dry-run"], ["would be replayed", "wrong_length", "2"]),
    ):
        shown = desk.run(*arguments).out.decode()
        assert all(text in shown for text in expected), shown
    assert desk.sent() == []


def test_a_record_comes_back_as_it_was_and_once(desk: Desk) -> None:
    desk.bury([desk.letter(0), desk.letter(1, key=None), desk.letter(3, "no_value", value=None)])
    assert desk.outcomes("--dry-run") == {"replayed": 3}
    assert desk.sent() == []
    assert desk.outcomes() == {"replayed": 3}
    found = {(item.partition, item.key, item.value): item.headers for item in desk.sent()}
    own = [("trace", b"7"), ("ferry.replayed", b"1")]
    assert found == {(0, b"k0", b"v0"): own, (1, None, b"v1"): own, (1, b"k3", None): own}
    assert desk.outcomes() == {}
    assert desk.lag() == 0
    assert len(desk.sent()) == 3


def test_what_one_replay_leaves_another_one_takes(desk: Desk) -> None:
    late = [desk.letter(number, "inference_failed") for number in range(10, 16)]
    desk.bury([*(desk.letter(number) for number in range(4)), *late])
    assert desk.outcomes("--reason", "inference_failed", "--limit", "4") == {
        "not_selected": pytest.approx(2, abs=2),
        "replayed": 4,
    }
    summary = {line["reason"]: line["waiting"] for line in desk.ask("summary")["reasons"]}
    assert summary == {"inference_failed": 2, "wrong_length": 4}
    assert desk.lag() >= 6
    assert desk.outcomes("--to", f"{desk.source}.repair") == {"replayed": 10}
    assert desk.outcomes()["replayed"] == 6
    assert sorted(item.value for item in desk.sent()) == sorted(
        f"v{number}".encode() for number in [*range(4), *range(10, 16)]
    )
    assert len(desk.sent(f"{desk.source}.repair")) == 10


def test_no_lag_stays_when_every_letter_is_replayed_whatever_came_last(desk: Desk) -> None:
    late = [desk.letter(number, "inference_failed") for number in (4, 6)]
    desk.bury([desk.letter(0), desk.letter(2), *late])
    assert desk.outcomes("--reason", "inference_failed") == {"not_selected": 2, "replayed": 2}
    assert desk.lag() == 4
    assert desk.outcomes("--batch", "1") == {"replayed": 2, "already": 2}
    assert desk.lag() == 0


def test_what_keeps_failing_is_refused_unless_forced(desk: Desk) -> None:
    tired = (("ferry.replayed", b"3"),)
    desk.bury([desk.letter(0, headers=tired), desk.letter(2)])
    assert desk.outcomes(code=5) == {"exhausted": 1, "replayed": 1}
    assert desk.outcomes("--force") == {"already": 1, "replayed": 1} | {}
    assert ("ferry.replayed", b"4") in [header for item in desk.sent() for header in item.headers]


def test_a_value_that_was_left_behind_is_fetched_from_its_own_topic(desk: Desk) -> None:
    with desk.producer() as producer:
        moment = {"partition": 0, "timestamp_ms": round(MOMENT.timestamp() * 1000)}
        producer.send(desk.source, key=b"big", value=b"x" * 500_000, **moment)
    there = desk.letter(0, "record_too_large", key=b"big", value=None)
    gone = desk.letter(0, "record_too_large", key=b"gone", value=None, offset=77)
    another = desk.letter(0, "record_too_large", key=b"not big", value=None)
    earlier = desk.letter(
        0, "record_too_large", key=b"big", value=None, timestamp=datetime(2025, 1, 1, tzinfo=UTC)
    )
    desk.bury([there, gone, another, earlier])
    assert desk.ask("show", "0:0")["value_left_behind"] is True
    assert len(desk.ask("show", "0:0")["value"]["text"]) == 500_000
    assert desk.outcomes() == {"replayed": 1, "value_lost": 3}
    assert [(item.key, len(item.value)) for item in desk.sent()] == [(b"big", 500_000)] * 2


def test_what_the_destination_does_not_take_is_said(desk: Desk) -> None:
    narrow = f"{desk.source}.narrow"
    ensure_topics(desk.kafka, {narrow: 2}, {"max.message.bytes": "1000"})
    desk.bury([desk.letter(0, value=b"x" * 600), desk.letter(2)])
    assert desk.outcomes("--to", narrow) == {"replayed": 1, "too_large": 1}
    assert [item.value for item in desk.sent(narrow)] == [b"v2"]


def test_a_topic_that_was_made_anew_is_replayed_anew(desk: Desk) -> None:
    desk.bury([desk.letter(0), desk.letter(2)])
    assert desk.outcomes() == {"replayed": 2}
    with admin_client(desk.kafka) as client:
        client.delete_topics([desk.dead_letters])
        wait_for(lambda: desk.dead_letters not in client.list_topics(), "the topic to go")
    ensure_topics(desk.kafka, {desk.dead_letters: 2})
    desk.bury([desk.letter(4)])
    assert desk.outcomes() == {"replayed": 1}
    assert sorted(item.value for item in desk.sent()) == [b"v0", b"v2", b"v4"]


def test_a_killed_replay_goes_on_where_it_stopped(desk: Desk) -> None:
    count = 600
    desk.bury([desk.letter(number) for number in range(count)])
    for _ in range(2):
        process = desk.start("replay", "--batch", "1")
        desk.wait_for_transaction()
        process.kill()
        process.communicate(timeout=DEADLINE)
    assert 0 < len(desk.sent()) < count, "it was through before it was killed: this proves nothing"
    desk.outcomes()
    assert Counter(item.value for item in desk.sent()) == Counter(
        f"v{number}".encode() for number in range(count)
    )


def test_the_newest_of_two_replays_goes_on_and_nothing_is_doubled(desk: Desk) -> None:
    count = 600
    desk.bury([desk.letter(number) for number in range(count)])
    first = desk.start("replay", "--batch", "1")
    desk.wait_for_transaction()
    desk.outcomes()
    _, complaint = first.communicate(timeout=DEADLINE)
    assert first.returncode == 4, complaint.decode()
    assert "another replay of these dead letters began" in complaint.decode()
    assert Counter(item.value for item in desk.sent()) == Counter(
        f"v{number}".encode() for number in range(count)
    )


def test_a_sender_that_is_shut_out_in_a_transaction_says_so_and_leaves_the_newer_one_alone(
    desk: Desk,
) -> None:
    def record(value: bytes) -> OutgoingRecord:
        return OutgoingRecord(desk.source, None, value, partition=0)

    def take_over() -> None:
        # asks for the id, which undoes what is open, and only long after that asks again and is given it
        newer = KafkaProducer(
            bootstrap_servers=desk.kafka, transactional_id=desk.source, retry_backoff_ms=3000
        )
        newer.init_transactions()
        newer.begin_transaction()
        newer.send(desk.source, b"third", partition=0)
        newer.commit_transaction()
        newer.close()

    def overtaken() -> Iterator[OutgoingRecord]:
        yield record(b"first")
        wait_for(lambda: desk.written() == 1, "the first record to be there, uncommitted")
        taking_over.append(threads.submit(take_over))
        wait_for(lambda: desk.written() == 2, "the mark that it is undone")
        yield record(b"second")

    taking_over: list[Future[None]] = []
    with ThreadPoolExecutor() as threads, open_sender(desk.kafka, desk.source, largest=1000) as older:
        with pytest.raises(ConflictError):
            older.commit(overtaken(), {}, None)
        taking_over[0].result(DEADLINE)
    assert [item.value for item in desk.sent()] == [b"third"]


def test_ctrl_c_ends_after_a_transaction(desk: Desk) -> None:
    desk.bury([desk.letter(number) for number in range(600)])
    process = desk.start("replay", "--batch", "1")
    desk.wait_for_transaction()
    process.send_signal(signal.SIGINT)
    table, complaint = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert complaint == b""
    assert b"replayed" in table


def test_what_is_not_there_is_named(desk: Desk) -> None:
    assert "records go back to" in desk.ask("replay", "--to", desk.dead_letters, code=2)
    assert "no topic" in desk.ask("replay", "--to", "nowhere", code=3)
    assert "PARTITION:OFFSET" in desk.ask("show", "seventeen", code=2)
    assert "is no moment" in desk.ask("list", "--since", "yesterday", code=2)
    assert "cannot be reached" in desk.run("summary", "--kafka", "127.0.0.1:1", code=6).err
