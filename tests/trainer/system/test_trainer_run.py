from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import Any

import orjson
from kafka import KafkaConsumer, TopicPartition

from ferryline.deploy.feed.datasets import DatasetName, load_dataset
from ferryline.deploy.feed.faults import fault_kinds, spoil
from ferryline.streams.kafka import admin_client
from tests.support.sizes import sized
from tests.support.waiting import wait_for
from tests.trainer.checks import require_learnt_once, require_sound


def test_a_stream_becomes_versions_that_serve(bench: Any, digit_values: list[bytes]) -> None:
    values = digit_values + digit_values[:1203]
    bench.send(values, partitions=2)
    trainer = bench.start("--until-records", str(len(values)))
    assert trainer.ended() == 0, trainer.text()

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
    with KafkaConsumer(bootstrap_servers=bench.addresses.kafka, group_id=bench.pipeline.name) as group:
        reported = [group.committed(part) for part in parts]
    assert reported == [part.end for part in last.lineage.offsets]


def test_whatever_ends_it_each_record_is_learnt_once(bench: Any, digit_values: list[bytes]) -> None:
    bench.write_pipeline(batch_records=2, every_records=200)
    values, sent = digit_values * sized(1, 2), 0
    part = len(values) // 7
    for number, status in ((signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, -9)):
        bench.send(values[sent : sent + part])
        trainer = bench.start("--until-records", str(len(values)))
        trainer.wait_for("published")
        # it has something to do when the signal comes
        bench.send(values[sent + part : sent + 2 * part])
        sent += 2 * part
        trainer.send(number)
        assert trainer.ended() == status, trainer.text()

        manifests = list(bench.registry.versions("digits").all())
        require_sound(manifests, bench.registry)
        saved, _ = bench.state()
        newest = manifests[-1].lineage
        assert newest is not None
        assert newest.records <= saved.records <= sent
        if number != signal.SIGKILL:
            assert saved.last_version == manifests[-1].version

    bench.send(values[sent:])
    again = bench.start("--until-records", str(len(values)))
    assert again.ended() == 0, again.text()
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
    trainer = bench.run("--until-records", str(len(values)), "--metrics-port", "0")
    assert trainer.status == 0, trainer.text()
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


def test_a_topic_that_is_not_there_is_one_clear_line(bench: Any) -> None:
    unknown = bench.start()
    assert unknown.ended() == 3
    assert f"no topic '{bench.topic}'" in unknown.text()
    assert "Traceback" not in unknown.text()


def test_a_broker_that_is_not_there_is_waited_for_or_told(bench: Any) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
        waiting = bench.start("--kafka", nobody)
        down = bench.run("--kafka", nobody, "--fail-fast", "--state", str(bench.folder / "elsewhere"))
        waiting.wait_for("kafka_unreachable", more_than=1)
        waiting.send(signal.SIGINT)
        assert waiting.ended() == 0
    assert down.status == 6
    assert down.text().splitlines()[-1].startswith(f"error: Kafka at {nobody} cannot be reached")
    assert "Traceback" not in down.text()


def test_a_state_in_use_or_damaged_is_left_as_it_is(bench: Any, digit_values: list[bytes]) -> None:
    bench.send(digit_values[:100])
    first = bench.start()
    first.wait_for("published")
    second = bench.run()
    assert second.status == 2
    assert "another ferry-trainer uses" in second.text()
    first.send(signal.SIGINT)
    assert first.ended() == 0

    state: Path = bench.folder / "state" / "trainer" / f"{bench.pipeline.name}.state"
    content = bytearray(state.read_bytes())
    content[-1] ^= 1
    state.write_bytes(content)
    damaged = bench.run()
    assert damaged.status == 2
    assert "--from-scratch" in damaged.text()
    assert state.read_bytes() == content
    assert "Traceback" not in second.text() + damaged.text()
    scratch = bench.run("--from-scratch", "--until-records", "100")
    assert scratch.status == 0, scratch.text()
    require_learnt_once(bench, digit_values[:100])


def _deleted(bench: Any) -> None:
    with admin_client(bench.addresses.kafka) as client:
        client.delete_topics([bench.topic])
        wait_for(lambda: bench.topic not in client.list_topics(), "the topic's deletion")


def test_a_topic_that_was_made_anew_meanwhile_is_learnt_whole(bench: Any, digit_values: list[bytes]) -> None:
    bench.send(digit_values[:100])
    assert bench.run("--until-records", "100").status == 0
    _deleted(bench)
    bench.send(digit_values[100:400])  # more than were read, so no offset tells
    anew = bench.run("--until-records", "400")
    assert anew.status == 0, anew.text()
    assert [event["had_read"] for event in anew.events("topic_made_anew")] == [{"0": 100}]
    require_learnt_once(bench, digit_values[:400])
    lineage = list(bench.registry.versions("digits").all())[-1].lineage
    assert [(part.first, part.end) for part in (*lineage.past, *lineage.offsets)] == [(0, 100), (0, 300)]
    assert lineage.topic_id not in {None, lineage.past[0].topic_id}


def test_a_topic_that_changes_while_it_is_learnt(bench: Any, digit_values: list[bytes]) -> None:
    bench.send(digit_values[:200])
    trainer = bench.start("--until-records", "800")

    def has_learnt(count: int) -> bool:
        return trainer.wait_for("training")["records"] == count

    wait_for(lambda: has_learnt(200), "the first records")
    with admin_client(bench.addresses.kafka) as client:
        client.create_partitions({bench.topic: 3})
    bench.send(digit_values[200:400])
    trainer.wait_for("partition_added", more_than=1)
    wait_for(lambda: has_learnt(400), "the records of all partitions")
    _deleted(bench)
    bench.send(digit_values[400:800], partitions=2)
    assert trainer.ended() == 0, trainer.text()
    assert len(trainer.events("topic_made_anew")) == 1
    require_learnt_once(bench, digit_values[:800])
    progress, _ = bench.state()
    assert sorted(progress.next) == [0, 1]
    assert sum(part.end - part.first for part in progress.past) == 400
