from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ferryline.flink_scoring.scorer import INFERENCE_FAILED, ScoredBatch, Scorer
from ferryline.flink_scoring.worker import moments_of
from ferryline.model_runtime.served import Canary, ServedModel
from ferryline.registry.canary import CanarySplit
from ferryline.streams.pipeline import Pipeline, parse_pipeline
from ferryline.streams.scored import ScoredRecord, decode_scored

Serve = Callable[..., ServedModel]
MakeModel = Callable[..., bytes]
ROOMY = 10_000_000


def record(**fields: Any) -> bytes:
    return json.dumps({"ts": "2026-01-02 03:04:05.678", "x": [1] * 64, "actual_y": 7} | fields).encode()


BAD = {
    "no_value": None,
    "record_too_large": b"x" * 5_000_000,
    "invalid_json": b'{"x": [1, 2',
    "not_an_object": b"[1, 2]",
    "missing_field": record(x=None),
    "wrong_type": record(x="1,2,3"),
    "wrong_length": record(x=[1] * 63),
    "not_a_number": record(x=[1] * 63 + ["3"]),
    "not_finite": record(x=[1.0] * 63 + [float("nan")]),
    "out_of_range": record(x=[1] * 63 + [17]),
    "bad_event_time": record(ts="yesterday"),
}


@pytest.fixture
def pipeline(digits_pipeline: Callable[[], Pipeline]) -> Pipeline:
    return digits_pipeline()


@pytest.fixture
def scorer(pipeline: Pipeline) -> Scorer:
    return Scorer(pipeline, largest_dead_value=ROOMY)


def scored_at(batch: ScoredBatch, index: int) -> ScoredRecord:
    value = batch.scored[index]
    assert value is not None
    return decode_scored(value)


def test_a_scored_record_says_everything(scorer: Scorer, serve: Serve, constant_model: MakeModel) -> None:
    served = serve(constant_model(3))
    before = datetime.now(UTC)
    scored = scored_at(scorer.score([record()], served), 0)
    assert scored.prediction == 3
    assert scored.scores is not None
    assert len(scored.scores) == 10
    assert sum(value or 0 for value in scored.scores) == pytest.approx(1, abs=1e-5)
    assert scored.event_time == datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
    assert before <= scored.scored_at <= datetime.now(UTC)
    assert scored.actual == 7
    assert (scored.model.name, scored.model.version, scored.model.generation) == ("digits", 1, 1)
    assert scored.model.digest == served.manifest.blob.digest


@pytest.mark.parametrize("reason", BAD)
def test_one_bad_record_spoils_only_itself(
    scorer: Scorer, serve: Serve, constant_model: MakeModel, reason: str
) -> None:
    batch = scorer.score([record(), BAD[reason], record()], serve(constant_model(3)))
    assert batch.reasons == [None, reason, None]
    assert batch.scored[1] is None
    assert batch.details[1]
    assert [scored_at(batch, index).prediction for index in (0, 2)] == [3, 3]


@pytest.mark.parametrize("label", [None, "seven", 12])
def test_a_record_without_a_usable_label_is_scored(
    scorer: Scorer, serve: Serve, constant_model: MakeModel, label: object
) -> None:
    scored = scored_at(scorer.score([record(actual_y=label)], serve(constant_model(3))), 0)
    assert (scored.prediction, scored.actual) == (3, None)


def test_63_and_65_features_are_told_apart(scorer: Scorer, serve: Serve, constant_model: MakeModel) -> None:
    batch = scorer.score([record(x=[1] * 63), record(x=[1] * 65)], serve(constant_model(3)))
    assert batch.reasons == ["wrong_length", "wrong_length"]
    assert ["63" in (text or "") for text in batch.details] == [True, False]
    assert ["65" in (text or "") for text in batch.details] == [False, True]


def test_an_empty_batch_and_one_of_bad_records_only(
    scorer: Scorer, serve: Serve, constant_model: MakeModel
) -> None:
    served = serve(constant_model(3))
    assert scorer.score([], served).scored == []
    assert scorer.score([None, b"{"], served).dead == 2


def test_a_row_the_model_cannot_take_does_not_spoil_the_others(
    scorer: Scorer, serve: Serve, picky_model: bytes
) -> None:
    values = [record(x=[first] + [0] * 63) for first in (4, 12, 9)]
    batch = scorer.score([b"{", *values], serve(picky_model))
    assert batch.reasons == ["invalid_json", None, INFERENCE_FAILED, None]
    assert [scored_at(batch, index).prediction for index in (1, 3)] == [4, 9]
    assert scored_at(batch, 1).scores is None


class NanAbove:
    """A session whose scores are NaN where the first feature is above a limit.

    Attributes:
        runs: how often it was asked.
    """

    def __init__(self, session: Any, limit: int) -> None:
        self.runs = 0
        self._session, self._limit = session, limit

    def run(self, feeds: Any, outputs: Any = None) -> dict[str, Any]:
        self.runs += 1
        answers: dict[str, Any] = self._session.run(feeds, outputs)
        answers["probabilities"][feeds["x"][:, 0] > self._limit] = np.nan
        return answers


def test_scores_that_are_no_numbers_are_never_written_and_are_found_in_few_runs(
    scorer: Scorer, serve: Serve, constant_model: MakeModel
) -> None:
    served = serve(constant_model(3))
    session = NanAbove(served.session, 9)
    values = [record(x=[12 if number == 700 else 4] + [0] * 63) for number in range(1000)]
    batch = scorer.score(values, dataclasses.replace(served, session=session))  # type: ignore[arg-type]
    assert [place for place, reason in enumerate(batch.reasons) if reason] == [700]
    assert batch.reasons[700] == INFERENCE_FAILED
    assert batch.details[700] == "the model gave no finite number as 'probabilities'"
    assert not any(b"null" in value for value in batch.scored if value)
    assert session.runs <= 21


class ShortOfMemory:
    """A session that runs out of memory in its first `failing` runs."""

    def __init__(self, session: Any, failing: int) -> None:
        self._session, self._failing = session, failing

    def run(self, feeds: Any, outputs: Any = None) -> Any:
        self._failing -= 1
        if self._failing >= 0:
            raise ValueError("the model could not be run on these inputs: std::bad_alloc")
        return self._session.run(feeds, outputs)


@pytest.mark.parametrize(("failing", "dead", "waits"), [(4, 0, 3), (1000, 3, 10)])
def test_want_of_memory_is_waited_for_and_not_for_ever(
    scorer: Scorer,
    serve: Serve,
    constant_model: MakeModel,
    monkeypatch: pytest.MonkeyPatch,
    failing: int,
    dead: int,
    waits: int,
) -> None:
    monkeypatch.setattr("ferryline.flink_scoring.scorer._WAIT", 0.0)
    served = serve(constant_model(3))
    short = dataclasses.replace(served, session=ShortOfMemory(served.session, failing))  # type: ignore[arg-type]
    batch = scorer.score([record(), record(), record()], short)
    assert (batch.dead, batch.waits) == (dead, waits)


def test_a_value_larger_than_the_dead_letter_topic_takes_is_left_where_it_is(
    pipeline: Pipeline, serve: Serve, constant_model: MakeModel
) -> None:
    scorer = Scorer(pipeline, largest_dead_value=1_000_000)
    batch = scorer.score([b"x" * 5_000_000, b"{", None, record()], serve(constant_model(3)))
    assert batch.keeps_value == [False, True, True, True]
    assert batch.dead == 3


def test_a_new_version_scores_the_next_batch(scorer: Scorer, serve: Serve, constant_model: MakeModel) -> None:
    versions = [serve(constant_model(answer)) for answer in (3, 5, 3)]
    for served, answer in zip(versions, (3, 5, 3), strict=True):
        scored = scored_at(scorer.score([record()], served), 0)
        assert scored.prediction == answer
        assert (scored.model.version, scored.model.generation) == (served.version, served.generation)
        assert scored.model.digest == served.digest


PHISHING = """
[pipeline]
name = "phishing"
model = "phishing"
[source]
topic = "pages"
[source.features]
field = "x"
kind = "object"
names = ["https", "popup"]
[source.label]
field = "y"
classes = [false, true]
[scoring]
topic = "pages.out"
"""


@pytest.mark.parametrize("classes", [(False, True), (0, 1)])
def test_boolean_classes_and_the_time_of_kafka(
    serve: Serve, constant_model: MakeModel, classes: tuple[object, ...]
) -> None:
    scorer = Scorer(parse_pipeline(PHISHING, where="here"), largest_dead_value=ROOMY)
    served = serve(constant_model(1, width=2, classes=classes), "phishing")
    times = [datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in (1, 2, 3)]
    value = orjson.dumps({"x": {"https": 1, "popup": 0}, "y": True})
    batch = scorer.score([value, b"{", value], served, times)
    scored = scored_at(batch, 2)
    assert scored.prediction is True
    assert scored.actual is True
    assert scored.correct is True
    assert scored.event_time == times[2]


def test_a_number_beyond_the_models_floats_is_scored_as_the_largest_of_them(
    serve: Serve, constant_model: MakeModel
) -> None:
    scorer = Scorer(parse_pipeline(PHISHING, where="here"), largest_dead_value=ROOMY)
    served = serve(constant_model(1, width=2, classes=(False, True)), "phishing")
    times = [datetime(2026, 1, 1, tzinfo=UTC)] * 2
    batch = scorer.score(
        [b'{"x": {"https": 1e39, "popup": -1e300}}', b'{"x": {"https": 1, "popup": 0}}'], served, times
    )
    beyond, plain = (scored_at(batch, place) for place in (0, 1))
    assert beyond.prediction is plain.prediction is True
    assert beyond.scores == plain.scores


def test_a_kafka_timestamp_beyond_the_calendar_kills_its_record_and_no_other(
    serve: Serve, constant_model: MakeModel
) -> None:
    scorer = Scorer(parse_pipeline(PHISHING, where="here"), largest_dead_value=ROOMY)
    served = serve(constant_model(1, width=2, classes=(False, True)), "phishing")
    value = orjson.dumps({"x": {"https": 1, "popup": 0}})
    microseconds = 1_780_000_000_000_000  # where milliseconds belong
    times = pd.Series(
        np.array([0, microseconds, 253_402_300_800_000, 5, -1], "datetime64[ms]")
    ).dt.tz_localize("UTC")
    batch = scorer.score([value, value, value, b"{", value], served, moments_of(times))
    assert [each is not None for each in batch.scored] == [True, False, False, False, True]
    assert batch.reasons == [None, "bad_event_time", "bad_event_time", "invalid_json", None]
    assert scored_at(batch, 4).event_time == datetime(1969, 12, 31, 23, 59, 59, 999_000, UTC)
    assert moments_of(times[:1]) == [datetime(1970, 1, 1, tzinfo=UTC)]


records = st.one_of(
    st.none(),
    st.binary(max_size=60),
    st.sampled_from(sorted(value for value in BAD.values() if value and len(value) < 2000)),
    st.lists(st.integers(-1, 18), min_size=63, max_size=65).map(lambda x: record(x=x)),
    st.integers(0, 16).map(lambda pixel: record(x=[pixel] * 64)),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(records, max_size=20), st.integers(0, 9))
def test_every_record_is_scored_or_dead_in_its_place(
    pipeline: Pipeline,
    serve: Serve,
    constant_model: MakeModel,
    values: list[bytes | None],
    answer: int,
) -> None:
    served = serve(constant_model(answer))
    scorer = Scorer(pipeline, largest_dead_value=ROOMY)
    batch = scorer.score(values, served)
    alone = [scorer.score([value], served) for value in values]
    assert (
        len(batch.scored) == len(batch.reasons) == len(batch.details) == len(batch.keeps_value) == len(values)
    )
    assert batch.reasons == [one.reasons[0] for one in alone]
    for scored, reason, detail in zip(batch.scored, batch.reasons, batch.details, strict=True):
        assert (scored is None) == (reason is not None) == (detail is not None)
        if scored is not None:
            document = decode_scored(scored)
            assert document.prediction == answer
            assert (document.model.version, document.model.digest) == (served.version, served.digest)


def test_a_canary_scores_its_share_of_keys_and_the_order_stays(
    scorer: Scorer, serve: Serve, constant_model: MakeModel
) -> None:
    stable, second = serve(constant_model(3)), serve(constant_model(5))
    split = CanarySplit("digits:production", second.version, 30)
    served = dataclasses.replace(stable, canary=Canary(second, split))
    keys = [f"user-{number}".encode() for number in range(400)]
    values: list[bytes | None] = [record(actual_y=number % 10) for number in range(400)]
    values[7] = b"no JSON"
    batch = scorer.score(values, served, keys=keys)
    for place, key in enumerate(keys):
        if place == 7:
            assert batch.reasons[place] == "invalid_json"
            continue
        scored = scored_at(batch, place)
        wanted = second if split.takes(key) else stable
        assert (scored.prediction, scored.model.version) == (5 if wanted is second else 3, wanted.version)
        assert scored.actual == place % 10
    assert sum(batch.by_version.values()) == 399
    assert 0.2 < batch.by_version[second.version] / 399 < 0.4


def test_a_record_without_a_key_is_decided_by_its_value(
    scorer: Scorer, serve: Serve, constant_model: MakeModel
) -> None:
    stable, second = serve(constant_model(3)), serve(constant_model(5))
    split = CanarySplit("digits:production", second.version, 50)
    served = dataclasses.replace(stable, canary=Canary(second, split))
    values = [record(x=[number % 16] * 64) for number in range(200)]
    keyless = scorer.score(values, served, keys=[None] * 200)
    assert [scored_at(keyless, place).model.version for place in range(200)] == [
        second.version if split.takes(value) else stable.version for value in values
    ]
