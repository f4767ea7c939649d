from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from ferryline.flink_scoring.options import TRANSACTION_SECONDS, Guarantee, JobOptions
from ferryline.flink_scoring.positions import StartPositions
from ferryline.flink_scoring.statements import insert_statement, job_settings, sink_table, source_table
from ferryline.flink_scoring.topics import LETTER_OVERHEAD, OutputLimits
from ferryline.streams.pipeline import Pipeline, Replay

BROKER_MAXIMUM = 15 * 60
LIMITS = OutputLimits(largest_message=8_000_000)
START = StartPositions("digits.in", "digits-scoring", {1: 7, 0: 40}, frozenset(), {})


@pytest.fixture
def options(digits_pipeline: Callable[[], Pipeline]) -> JobOptions:
    return JobOptions(
        digits_pipeline(), store="file:///there", kafka="broker:9092", parallelism=2, checkpoint_seconds=2.5
    )


def settings_of(table: str) -> dict[str, str]:
    return dict(re.findall(r"'([^']+)' = '([^']*)'", table))


def test_exactly_once_has_a_stable_prefix_and_a_transaction_that_the_broker_allows(
    options: JobOptions,
) -> None:
    sink = settings_of(sink_table(options, LIMITS))
    assert sink["sink.delivery-guarantee"] == "exactly-once"
    assert sink["sink.transactional-id-prefix"] == "digits-scoring"
    timeout = int(sink["properties.transaction.timeout.ms"]) / 1000
    assert 2 * options.checkpoint_seconds < timeout == TRANSACTION_SECONDS <= BROKER_MAXIMUM


def test_at_least_once_opens_no_transaction(options: JobOptions) -> None:
    sink = settings_of(sink_table(replace(options, guarantee=Guarantee.AT_LEAST_ONCE), LIMITS))
    assert sink["sink.delivery-guarantee"] == "at-least-once"
    assert not [name for name in sink if "transaction" in name]


def test_the_producer_refuses_nothing_that_the_dead_letter_topic_takes(options: JobOptions) -> None:
    sink = settings_of(sink_table(options, LIMITS))
    assert int(sink["properties.max.request.size"]) == LIMITS.largest_message
    assert int(sink["properties.buffer.memory"]) > LIMITS.largest_message
    assert LIMITS.largest_dead_value == LIMITS.largest_message - LETTER_OVERHEAD
    assert OutputLimits(1000).largest_dead_value == 500


def test_the_source_begins_where_it_was_told(options: JobOptions) -> None:
    source = settings_of(source_table(options, START))
    assert source["topic"] == "digits.in"
    assert source["scan.startup.mode"] == "specific-offsets"
    assert source["scan.startup.specific-offsets"] == "partition:0,offset:40;partition:1,offset:7"
    assert source["properties.auto.offset.reset"] == "earliest"
    assert source["properties.group.id"] == "digits-scoring"


def test_kafka_timestamps_are_passed_only_where_records_have_no_time(options: JobOptions) -> None:
    assert "ferry_score(`value`, `key`, `partition`, `offset`)" in insert_statement(options)
    source = options.pipeline.source.model_copy(update={"event_time": None})
    timeless = replace(options, pipeline=options.pipeline.model_copy(update={"source": source}))
    timed = "ferry_score(`value`, `key`, `timestamp`, `partition`, `offset`)"
    assert timed in insert_statement(timeless)


def test_places_are_passed_only_where_replays_are_scored_by_the_same(options: JobOptions) -> None:
    scoring = options.scoring.model_copy(update={"replay": Replay.NEWEST})
    newest = replace(options, pipeline=options.pipeline.model_copy(update={"scoring": scoring}))
    assert "ferry_score(`value`, `key`)" in insert_statement(newest)


def test_a_quote_in_an_address_stays_inside_its_literal(options: JobOptions) -> None:
    assert "'bro''ker:9092'" in source_table(replace(options, kafka="bro'ker:9092"), START)


def test_the_settings_of_the_job(options: JobOptions) -> None:
    settings = job_settings(options)
    assert settings["execution.checkpointing.interval"] == "2500 ms"
    assert settings["parallelism.default"] == "2"
    assert settings["pipeline.name"] == "digits-scoring"
