"""`ferry-feed` on a real Kafka."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import orjson
import pytest
from kafka import KafkaConsumer, TopicPartition

from ferryline.deploy.feed.__main__ import main
from ferryline.deploy.stack.local import Addresses
from tests.support.waiting import DEADLINE, wait_for

FEED = Path(sys.executable).with_name("ferry-feed")


@pytest.fixture
def topic() -> str:
    return f"feed-{uuid.uuid4().hex}"


def feed(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run `ferry-feed` in this process; returns its exit status."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(sys, "argv", ["ferry-feed", *words])
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return int(str(ended.value.code or 0))


def read_all(
    addresses: Addresses, topic: str, partitions: int = 1
) -> list[tuple[bytes, bytes, list[object]]]:
    parts = [TopicPartition(topic, number) for number in range(partitions)]
    found: list[tuple[bytes, bytes, list[object]]] = []
    with KafkaConsumer(bootstrap_servers=addresses.kafka, auto_offset_reset="earliest") as consumer:
        consumer.assign(parts)
        total = sum(consumer.end_offsets(parts).values())

        def all_came() -> bool:
            for records in consumer.poll(timeout_ms=200).values():
                found.extend((record.key, record.value, list(record.headers)) for record in records)
            return len(found) >= total

        wait_for(all_came, f"{total} records of {topic}")
    return found


def test_a_replay_arrives_whole_and_no_faster_than_its_rate(
    kafka: Addresses, topic: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FERRY_KAFKA", kafka.kafka)
    words = ("digits", "--topic", topic, "--rate", "800", "--count", "2400", "--partitions", "2")
    assert feed(monkeypatch, *words, "--faults", "0.01", "-o", "json") == 0
    report = orjson.loads(capsys.readouterr().out)
    assert (report["sent"], report["acknowledged"], report["failed"]) == (2400, 2400, 0)
    assert report["per_second"] < 840  # on a slow machine it is less still
    records = read_all(kafka, topic, partitions=2)
    assert len(records) == 2400
    faults = [headers for _, _, headers in records if headers]
    assert len(faults) == sum(report["faults"].values()) > 7
    assert set(report["faults"]) >= {"broken_json", "nan", "oversized"}


def test_an_interrupt_sends_what_is_under_way_and_reports(kafka: Addresses, topic: str) -> None:
    process = subprocess.Popen(
        [FEED, "phishing", "--topic", topic, "--rate", "300", "-o", "json"],
        env=os.environ | {"FERRY_KAFKA": kafka.kafka},
        stdout=subprocess.PIPE,
    )
    try:
        wait_for(lambda: _has_records(kafka, topic), "the first records", pause=0.1)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    report = orjson.loads(output)
    assert report["sent"] == report["acknowledged"] == len(read_all(kafka, topic)) > 0


def test_a_broker_that_is_not_there_is_one_clear_line() -> None:
    answer = subprocess.run(
        [FEED, "digits", "--kafka", "127.0.0.1:1"],
        capture_output=True,
        check=False,
        text=True,
        timeout=DEADLINE,
    )
    assert answer.returncode != 0
    assert answer.stderr.startswith("error: Kafka at 127.0.0.1:1 cannot be reached")
    assert len(answer.stderr.splitlines()) == 1


def _has_records(addresses: Addresses, topic: str) -> bool:
    with KafkaConsumer(bootstrap_servers=addresses.kafka, allow_auto_create_topics=False) as consumer:
        if topic not in consumer.topics():
            return False
        part = TopicPartition(topic, 0)
        return bool(consumer.end_offsets([part])[part])
