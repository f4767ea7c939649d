from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.flink_scoring.options import Guarantee, JobOptions, advise_on_latency
from ferryline.flink_scoring.several import whole_job
from ferryline.flink_scoring.statements import job_settings, sink_table
from ferryline.flink_scoring.topics import OutputLimits
from ferryline.flink_scoring.tuning import batch_records, latency_advice, tune
from ferryline.streams.pipeline import ArrayFeatures, Pipeline, RecordFormat


@pytest.fixture
def options(digits_pipeline: Callable[[], Pipeline]) -> JobOptions:
    return JobOptions(digits_pipeline(), "file:///there", "broker:9092", 1, checkpoint_seconds=5.0)


@given(st.integers(5, 60_000), st.integers(500, 10_000))
def test_a_record_waits_for_half_of_its_latency(latency_ms: int, records: int) -> None:
    tuning = tune(latency_ms, records)
    oldest = 2 * tuning.bundle_ms  # Flink looks once in that time whether a batch is that old
    assert latency_ms // 2 - 1 <= oldest + tuning.linger_ms <= latency_ms // 2
    assert tuning.bundle_ms >= 1
    assert 0 <= tuning.linger_ms <= 5
    assert 500 <= tuning.arrow_records <= tuning.bundle_records == records


@pytest.mark.parametrize(
    ("width", "text", "records"),
    [
        (1, "json", 40_000),
        (64, "json", 26_214),
        (64, "float32", 40_000),
        (784, "float32", 5349),
        (10**6, "json", 500),
    ],
)
def test_a_batch_is_what_memory_likes(
    digits_pipeline: Callable[[], Pipeline], width: int, text: str, records: int
) -> None:
    features = ArrayFeatures(field="x", kind="array", size=width)
    source = digits_pipeline().source.model_copy(update={"features": features, "format": RecordFormat(text)})
    assert batch_records(source) == records


def test_the_latency_becomes_settings(options: JobOptions) -> None:
    quick = replace(options, latency_ms=50, batch_records=16_000)
    settings = job_settings(quick)
    assert settings["python.fn-execution.bundle.time"] == "10"
    assert settings["python.fn-execution.bundle.size"] == "16000"
    assert settings["python.fn-execution.arrow.batch.size"] == "1000"
    assert "'properties.linger.ms' = '5'" in sink_table(quick, OutputLimits(1_000_000))
    assert job_settings(options)["python.fn-execution.bundle.time"] == "22"


def test_several_pipelines_are_as_quick_as_the_quickest(options: JobOptions) -> None:
    others = [
        options,
        replace(options, latency_ms=20, batch_records=900),
        replace(options, batch_records=700),
    ]
    whole = whole_job(others)
    assert (whole.latency_ms, whole.batch_records) == (20, 700)


def test_a_latency_below_the_checkpoints_is_explained() -> None:
    advice = latency_advice(50, 5.0, exactly_once=True)
    assert advice is not None
    assert "5 s later" in advice
    assert latency_advice(50, 5.0, exactly_once=False) is None
    assert latency_advice(1000, 1.0, exactly_once=True) is None


def test_only_who_asked_for_a_latency_is_told(options: JobOptions) -> None:
    assert advise_on_latency(options) is None
    assert advise_on_latency(replace(options, latency_ms=50))
    assert advise_on_latency(replace(options, latency_ms=50, guarantee=Guarantee.AT_LEAST_ONCE)) is None
