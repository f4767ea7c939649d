from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ferryline.flink_scoring.options import JobOptions
from ferryline.flink_scoring.positions import StartPositions
from ferryline.flink_scoring.several import job_name, tell_apart, whole_job
from ferryline.flink_scoring.statements import insert_statement, sink_table, source_table
from ferryline.flink_scoring.topics import OutputLimits
from ferryline.registry.errors import UsageError
from ferryline.streams.pipeline import LabelsSpec, Pipeline

MakePipeline = Callable[[str], Pipeline]


def job_options(pipeline: Pipeline, *, parallelism: int = 1, checkpoint_seconds: float = 5.0) -> JobOptions:
    return JobOptions(pipeline, "file:///s", "broker:9092", parallelism, checkpoint_seconds)


def test_a_job_of_one_keeps_its_name_and_its_tables_plain_ones(digits_pipeline: MakePipeline) -> None:
    options = job_options(digits_pipeline("digits"))
    assert tell_apart([options]) == [options]
    assert job_name([options]) == "digits-scoring"
    assert whole_job([options]) == options


def test_several_have_tables_groups_and_transactions_of_their_own(digits_pipeline: MakePipeline) -> None:
    every = tell_apart([job_options(digits_pipeline(name)) for name in ("digits", "digits-b")])
    assert job_name(every) == "digits+digits-b-scoring"
    sources = [
        source_table(
            options, StartPositions(options.pipeline.source.topic, options.name, {}, frozenset(), {})
        )
        for options in every
    ]
    assert "TABLE ferry_source_digits (" in sources[0]
    assert "TABLE ferry_source_digits_b (" in sources[1]
    assert ["'digits-scoring'" in sources[0], "'digits-b-scoring'" in sources[1]] == [True, True]
    assert "'sink.transactional-id-prefix' = 'digits-b-scoring'" in sink_table(every[1], OutputLimits(10**6))
    assert "ferry_score_digits_b(`value`" in insert_statement(every[1])
    assert "INSERT INTO ferry_sink_digits_b" in insert_statement(every[1])


def test_the_most_demanding_pipeline_decides_for_the_job(digits_pipeline: MakePipeline) -> None:
    every = [
        replace(job_options(digits_pipeline("a"), parallelism=2, checkpoint_seconds=9.0), latency_ms=50),
        replace(job_options(digits_pipeline("b"), checkpoint_seconds=3.0), batch_records=600),
    ]
    whole = whole_job(every)
    assert (whole.parallelism, whole.checkpoint_seconds) == (2, 3.0)
    assert (whole.latency_ms, whole.batch_records) == (50, 600)


def test_two_of_one_name_are_refused(digits_pipeline: MakePipeline) -> None:
    options = job_options(digits_pipeline("digits"))
    with pytest.raises(UsageError, match="two pipelines are called digits"):
        tell_apart([options, options])


def test_two_whose_tables_would_share_names_are_refused(digits_pipeline: MakePipeline) -> None:
    alike = [job_options(digits_pipeline(name)) for name in ("a-b", "a.b")]
    with pytest.raises(UsageError, match=r"a-b and a\.b would share"):
        tell_apart(alike)


def test_two_that_write_one_topic_are_refused(digits_pipeline: MakePipeline) -> None:
    first, second = digits_pipeline("a"), digits_pipeline("b")
    scoring = second.require_scoring().model_copy(update={"dead_letters": "a.out.dlq"})
    with pytest.raises(UsageError, match=r"a and b both write topic a\.out\.dlq"):
        tell_apart([job_options(first), job_options(second.model_copy(update={"scoring": scoring}))])
    labels = LabelsSpec(topic="truth", accuracy="a.out")
    with pytest.raises(UsageError, match=r"a and b both write topic a\.out"):
        tell_apart([job_options(first), job_options(second.model_copy(update={"labels": labels}))])


def test_two_may_read_one_topic(digits_pipeline: MakePipeline) -> None:
    first, second = digits_pipeline("a"), digits_pipeline("b")
    same = second.model_copy(update={"source": first.source})
    assert len(tell_apart([job_options(first), job_options(same)])) == 2
