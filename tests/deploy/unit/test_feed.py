from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.deploy.feed.datasets import Dataset, DatasetName, load_dataset
from ferryline.deploy.feed.faults import fault_kinds, spoil
from ferryline.deploy.feed.schedule import Pacer, sample_order
from ferryline.streams.pipeline import load_pipeline
from ferryline.streams.records import RecordDecoder

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


@pytest.fixture(scope="module", params=list(DatasetName))
def dataset(request: pytest.FixtureRequest) -> Dataset:
    return load_dataset(request.param)


def decoder(dataset: Dataset) -> RecordDecoder:
    return RecordDecoder(load_pipeline(Path(f"deploy/pipelines/{dataset.name}.toml")).source)


def test_every_sample_is_a_good_record_of_its_pipeline(dataset: Dataset) -> None:
    values = [orjson.dumps(dataset.record(index, NOW)) for index in range(len(dataset.samples))]
    batch = decoder(dataset).decode_batch(values)
    assert not batch.rejections
    assert len(batch) == {"digits": 1797, "phishing": 1250}[dataset.name]
    pipeline = load_pipeline(Path(f"deploy/pipelines/{dataset.name}.toml"))
    assert set(batch.labels) == set(pipeline.source.label.classes)
    assert pipeline.source.topic == dataset.topic


def test_digits_carry_the_moment_of_sending() -> None:
    record = load_dataset(DatasetName.DIGITS).record(0, NOW)
    assert list(record) == ["ts", "x", "actual_y"]
    assert record["ts"] == "2026-01-02T03:04:05.678+00:00"
    assert record["actual_y"] == 0
    assert all(type(value) is int for value in record["x"])


def test_every_fault_is_rejected_for_what_it_is(dataset: Dataset) -> None:
    sample = dataset.record(3, NOW)
    found = {}
    for kind in fault_kinds(sample):
        batch = decoder(dataset).decode_batch([spoil(sample, kind)])
        found[kind] = [str(rejection.reason) for rejection in batch.rejections]
    lengths = {"digits": "wrong_length", "phishing": "missing_field"}[dataset.name]
    expected = {
        "broken_json": ["invalid_json"],
        "missing_field": ["missing_field"],
        "too_few_features": [lengths],
        "too_many_features": ["wrong_length"],
        "string_for_number": ["not_a_number"],
        "nan": ["not_finite"],
        "oversized": ["record_too_large"],
    }
    if dataset.name == DatasetName.PHISHING:
        del expected["too_many_features"]
    assert found == expected


@given(st.floats(0.5, 5000), st.lists(st.floats(0, 0.5), min_size=1, max_size=50))
def test_the_average_rate_is_exact_however_uneven_the_calls(rate: float, waits: list[float]) -> None:
    now, sent = 100.0, 0
    pacer = Pacer(rate, now=now)
    for wait in waits:
        now += wait
        due = pacer.due(now)
        pacer.sent(due)
        sent += due
        assert abs(sent - (now - 100.0) * rate) <= 1.001
        assert pacer.due(now) == 0
        assert 0 <= pacer.pause(now) <= 1 / rate + 1e-6


def test_a_stall_is_made_up_for_by_a_second_at_most() -> None:
    pacer = Pacer(100, now=0.0)
    assert pacer.due(60.0) == 101
    pacer.sent(101)
    assert pacer.due(60.5) == 50


def test_orders_are_complete_repeatable_and_bounded() -> None:
    assert list(sample_order(3, loops=2)) == [0, 1, 2, 0, 1, 2]
    assert list(sample_order(3, count_limit=4)) == [0, 1, 2, 0]
    shuffled = list(sample_order(50, loops=2, seed=1))
    assert shuffled == list(sample_order(50, loops=2, seed=1))
    assert shuffled[:50] != shuffled[50:]
    assert Counter(shuffled) == Counter(list(range(50)) * 2)
