import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
from kafka import KafkaConsumer, TopicPartition

from deploy.stack.local import Addresses

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
FEED = Path(sys.executable).with_name("ferry-feed")


def environment(addresses: Addresses) -> dict[str, str]:
    return os.environ | {"FERRY_KAFKA": addresses.kafka}


def read_all(
    addresses: Addresses, topic: str, partitions: int = 1
) -> list[tuple[bytes, bytes, list[object]]]:
    parts = [TopicPartition(topic, number) for number in range(partitions)]
    with KafkaConsumer(bootstrap_servers=addresses.kafka, auto_offset_reset="earliest") as consumer:
        consumer.assign(parts)
        total = sum(consumer.end_offsets(parts).values())
        found: list[tuple[bytes, bytes, list[object]]] = []
        deadline = time.monotonic() + 30
        while len(found) < total and time.monotonic() < deadline:
            for records in consumer.poll(timeout_ms=200).values():
                found += [(record.key, record.value, list(record.headers)) for record in records]
    return found


def test_a_replay_arrives_whole_and_no_faster_than_its_rate(kafka: Addresses) -> None:
    answer = subprocess.run(
        [FEED, "digits", "--topic", "feed-rate", "--rate", "800", "--count", "2400", "--partitions", "2",
         "--faults", "0.01", "-o", "json"],
        env=environment(kafka), capture_output=True, check=True, text=True,
    )  # fmt: skip
    report = orjson.loads(answer.stdout)
    assert (report["sent"], report["acknowledged"], report["failed"]) == (2400, 2400, 0)
    assert report["per_second"] < 840
    records = read_all(kafka, "feed-rate", partitions=2)
    assert len(records) == 2400
    faults = [headers for _, _, headers in records if headers]
    assert len(faults) == sum(report["faults"].values()) > 7
    assert set(report["faults"]) >= {"broken_json", "nan", "oversized"}


def test_an_interrupt_sends_what_is_under_way_and_reports(kafka: Addresses) -> None:
    process = subprocess.Popen(
        [FEED, "phishing", "--topic", "feed-stop", "--rate", "300", "-o", "json"],
        env=environment(kafka), stdout=subprocess.PIPE,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not _has_records(kafka, "feed-stop") and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=40)
    assert process.returncode == 0
    report = orjson.loads(output)
    assert report["sent"] == report["acknowledged"] == len(read_all(kafka, "feed-stop")) > 0


def test_a_broker_that_is_not_there_is_one_clear_line() -> None:
    answer = subprocess.run(
        [FEED, "digits", "--kafka", "127.0.0.1:1"], capture_output=True, check=False, text=True
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
