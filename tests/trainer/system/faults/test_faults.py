"""A Kafka and a store that go away while a trainer learns."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from ferryline.deploy.stack.addresses import Addresses
from ferryline.deploy.stack.local import LocalStack
from tests.trainer.checks import require_learnt_once, require_sound


@pytest.fixture
def addresses(fault_stack: LocalStack) -> Addresses:
    return fault_stack.up()


def test_a_kafka_that_restarts_loses_nothing(
    bench: Any, fault_stack: LocalStack, digit_values: list[bytes]
) -> None:
    values = digit_values[:1400]
    bench.send(values[:700])
    trainer = bench.start("--until-records", str(len(values)), "--metrics-port", "0")
    port = trainer.wait_for("started")["metrics_port"]
    trainer.wait_for("published")
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'ferry_trainer_version{model="digits"}' in text
    fault_stack.kill_part("kafka")
    lost = trainer.wait_for("kafka_unreachable")
    assert lost["kafka"] == bench.addresses.kafka
    fault_stack.start_part("kafka")
    bench.send(values[700:])
    assert trainer.ended() == 0, trainer.text()
    assert trainer.events("kafka_is_back")
    require_learnt_once(bench, values)


def test_a_store_that_goes_away_does_not_stop_learning(
    bench: Any, fault_stack: LocalStack, digit_values: list[bytes]
) -> None:
    bench.store = bench.addresses.store.replace("s3://models", f"s3://models/{bench.topic}")
    fault_stack.kill_part("minio")
    bench.send(digit_values[:600])
    trainer = bench.start("--until-records", "1700")
    failed = trainer.wait_for("publish_failed", more_than=1)
    assert "cannot be reached" in failed["error"]
    assert not trainer.events("published")
    fault_stack.start_part("minio")
    trainer.wait_for("store_is_back")  # not "published": the channel may still point elsewhere
    fault_stack.kill_part("minio")
    bench.send(digit_values[600:1200])
    trainer.wait_for("publish_failed", more_than=len(trainer.events("publish_failed")))
    fault_stack.start_part("minio")
    trainer.wait_for("store_is_back", more_than=1)
    bench.send(digit_values[1200:1700])
    assert trainer.ended() == 0, trainer.text()
    manifests = list(bench.registry.versions("digits").all())
    require_sound(manifests, bench.registry)
    assert manifests[-1].lineage is not None
    assert manifests[-1].lineage.records == 1700
    assert bench.registry.channel("digits").require_head().version == manifests[-1].version
    require_learnt_once(bench, digit_values[:1700])
