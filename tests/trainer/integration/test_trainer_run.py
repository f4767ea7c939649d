import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from kafka import KafkaConsumer, TopicPartition

from deploy.feed.datasets import DatasetName, load_dataset
from deploy.feed.faults import fault_kinds, spoil
from deploy.stack.local import LocalStack
from model_runtime.facts import read_facts
from registry.documents import Manifest
from streams.kafka import admin_client

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"{what} took too long"
        time.sleep(0.05)


def require_sound(manifests: list[Manifest], registry: Any) -> None:
    """Every version is whole, and its lineage goes on where its parent's ends."""
    for before, after in zip([None, *manifests], manifests, strict=False):
        lineage = after.lineage
        assert lineage is not None
        assert lineage.records + lineage.skipped == sum(part.end - part.first for part in lineage.offsets)
        assert read_facts(registry.versions(after.model).load(after)).outputs == after.outputs
        assert after.parent_version == (before.version if before else None)
        if before is None or before.lineage is None:
            continue
        assert lineage.records > before.lineage.records
        for earlier, later in zip(before.lineage.offsets, lineage.offsets, strict=True):
            assert (earlier.partition, earlier.first) == (later.partition, later.first)
            assert earlier.end <= later.end


def require_learnt_once(bench: Any, values: list[bytes]) -> None:
    """The scaler counted and averaged every record exactly once."""
    progress, arrays = bench.state()
    rows = np.array([orjson.loads(value)["x"] for value in values], dtype=float)
    assert progress.records == len(values)
    assert arrays["learner.scaler.n_samples_seen_"] == len(values)
    np.testing.assert_allclose(arrays["learner.scaler.mean_"], rows.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(arrays["learner.scaler.var_"], rows.var(axis=0), atol=1e-9)
    assert arrays["learner.sgd.t_"] == len(values) + 1


def test_a_stream_becomes_versions_that_serve(bench: Any, digit_values: list[bytes]) -> None:
    values = digit_values + digit_values[:1203]
    bench.send(values, partitions=2)
    trainer = bench.run("--until-records", str(len(values)))
    assert trainer.process.returncode == 0, trainer.text()

    manifests = list(bench.registry.versions("digits").all())
    assert len(manifests) >= 3
    require_sound(manifests, bench.registry)
    last = manifests[-1]
    assert last.lineage is not None
    assert (last.lineage.topic, last.lineage.records, last.lineage.skipped) == (bench.topic, len(values), 0)
    assert len(last.lineage.offsets) == 2
    assert last.evaluation is not None
    assert last.evaluation.metrics["accuracy"] > 0.9
    assert bench.registry.channel("digits").require_head().version == last.version
    require_learnt_once(bench, values)

    parts = [TopicPartition(bench.topic, number) for number in (0, 1)]
    with KafkaConsumer(bootstrap_servers=bench.addresses.kafka, group_id="digits") as group:
        reported = [group.committed(part) for part in parts]
    assert reported == [part.end for part in last.lineage.offsets]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, -9)]
)
def test_whatever_ends_it_each_record_is_learnt_once(
    bench: Any, digit_values: list[bytes], number: int, status: int
) -> None:
    bench.write_pipeline(batch_records=2, every_records=200)
    values = digit_values * 2
    bench.send(values)
    trainer = bench.start("--until-records", str(len(values)))
    trainer.wait_for("published", more_than=1)
    trainer.send(number)
    assert trainer.ended() == status, trainer.text()

    manifests = list(bench.registry.versions("digits").all())
    require_sound(manifests, bench.registry)
    saved, _ = bench.state()
    newest = manifests[-1].lineage
    assert newest is not None
    assert newest.records <= saved.records < len(values)
    if number != signal.SIGKILL:
        assert saved.last_version == manifests[-1].version

    again = bench.run("--until-records", str(len(values)))
    assert again.process.returncode == 0, again.text()
    require_learnt_once(bench, values)
    require_sound(list(bench.registry.versions("digits").all()), bench.registry)


def test_bad_records_of_every_kind_are_skipped_and_told(bench: Any) -> None:
    data = load_dataset(DatasetName.DIGITS)
    sample = {"ts": "2026-01-01T00:00:00.000Z", **data.samples[0]}
    good = [orjson.dumps({**sample, **other}) for other in data.samples[:600]]
    kinds = fault_kinds(data.samples[0])
    values = list(good)
    for place, kind in enumerate(kinds):
        values.insert(50 + 60 * place, spoil(sample, kind))
    values.insert(500, orjson.dumps({**sample, "actual_y": 12}))
    values.insert(510, orjson.dumps({**sample, "ts": "soon"}))
    bench.send(values)
    trainer = bench.start("--until-records", str(len(values)), "--metrics-port", "0")
    assert trainer.ended() == 0, trainer.text()
    progress, _ = bench.state()
    assert progress.skipped == {
        "invalid_json": 1,
        "missing_field": 1,
        "wrong_length": 2,
        "not_a_number": 1,
        "not_finite": 1,
        "record_too_large": 1,
        "bad_label": 1,
        "bad_event_time": 1,
    }
    require_learnt_once(bench, good)
    manifest = list(bench.registry.versions("digits").all())[-1]
    assert manifest.lineage is not None
    assert (manifest.lineage.records, manifest.lineage.skipped) == (600, 9)
    told = trainer.events("record_rejected")
    assert told[0] | {"timestamp": 0} == told[0] | {"timestamp": 0, "partition": 0, "offset": 50}
    assert told[0]["reason"] == "invalid_json"


def test_a_kafka_that_restarts_loses_nothing(
    bench: Any, own_stack: LocalStack, digit_values: list[bytes]
) -> None:
    values = digit_values[:1400]
    bench.send(values[:700])
    trainer = bench.start("--until-records", str(len(values)), "--metrics-port", "0")
    port = trainer.wait_for("started")["metrics_port"]
    trainer.wait_for("published")
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'ferry_trainer_version{model="digits"}' in text
    own_stack.kill_part("kafka")
    lost = trainer.wait_for("kafka_unreachable")
    assert lost["kafka"] == bench.addresses.kafka
    own_stack.start_part("kafka")
    bench.send(values[700:])
    assert trainer.ended() == 0, trainer.text()
    assert trainer.events("kafka_is_back")
    require_learnt_once(bench, values)


def test_a_store_that_goes_away_does_not_stop_learning(
    bench: Any, own_stack: LocalStack, digit_values: list[bytes]
) -> None:
    bench.store = bench.addresses.store.replace("s3://models", f"s3://models/{bench.topic}")
    own_stack.kill_part("minio")
    bench.send(digit_values[:600])
    trainer = bench.start("--until-records", "1700")
    failed = trainer.wait_for("publish_failed", more_than=1)
    assert "cannot be reached" in failed["error"]
    assert not trainer.events("published")
    own_stack.start_part("minio")
    trainer.wait_for("store_is_back")  # not "published": the channel may still point elsewhere
    own_stack.kill_part("minio")
    bench.send(digit_values[600:1200])
    trainer.wait_for("publish_failed", more_than=len(trainer.events("publish_failed")))
    own_stack.start_part("minio")
    trainer.wait_for("store_is_back", more_than=1)
    bench.send(digit_values[1200:1700])
    assert trainer.ended() == 0, trainer.text()
    manifests = list(bench.registry.versions("digits").all())
    require_sound(manifests, bench.registry)
    assert manifests[-1].lineage is not None
    assert manifests[-1].lineage.records == 1700
    assert bench.registry.channel("digits").require_head().version == manifests[-1].version
    require_learnt_once(bench, digit_values[:1700])


def test_what_cannot_start_says_why(bench: Any, digit_values: list[bytes]) -> None:
    unknown = bench.run()
    assert unknown.process.returncode == 3
    assert f"no topic '{bench.topic}'" in unknown.text()

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
        down = bench.run("--kafka", nobody, "--fail-fast")
        waiting = bench.start("--kafka", nobody)
        waiting.wait_for("kafka_unreachable", more_than=1)
        waiting.send(signal.SIGINT)
        assert waiting.ended() == 0
    assert down.process.returncode != 0
    assert down.text().splitlines()[-1].startswith(f"error: Kafka at {nobody} cannot be reached")

    bench.send(digit_values[:100])
    first = bench.start()
    first.wait_for("published")
    second = bench.run()
    assert second.process.returncode == 2
    assert "another ferry-trainer uses" in second.text()
    first.send(signal.SIGINT)
    assert first.ended() == 0

    state: Path = bench.folder / "state" / "trainer" / "digits.state"
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    damaged = bench.run()
    assert damaged.process.returncode == 2
    assert "--from-scratch" in damaged.text()
    assert state.read_bytes() == content
    assert "Traceback" not in unknown.text() + down.text() + second.text() + damaged.text()
    scratch = bench.run("--from-scratch", "--until-records", "100")
    assert scratch.process.returncode == 0, scratch.text()
    require_learnt_once(bench, digit_values[:100])


def test_a_topic_that_was_created_anew_is_not_continued(bench: Any, digit_values: list[bytes]) -> None:
    bench.send(digit_values[:100])
    assert bench.run("--until-records", "100").process.returncode == 0
    with admin_client(bench.addresses.kafka) as client:
        client.delete_topics([bench.topic])
        wait_until(lambda: bench.topic not in client.list_topics(), "the topic's deletion")
    bench.send(digit_values[:10])
    anew = bench.run()
    assert anew.process.returncode == 2
    assert "the topic ends at 10: it was created anew" in anew.text()
    assert "--from-scratch" in anew.text()
    assert bench.state()[0].records == 100
