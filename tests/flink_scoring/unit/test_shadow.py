from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.flink_scoring.scorer import Scorer
from ferryline.flink_scoring.shadowing.budget import BURST_SECONDS, ShadowBudget
from ferryline.flink_scoring.shadowing.trial import worth_comparing
from ferryline.model_runtime.served import ServedModel
from ferryline.registry.errors import UsageError
from ferryline.streams.pipeline import Pipeline, parse_pipeline
from ferryline.streams.scored import ModelStamp, ShadowAnswer, decode_scored, encode_scored
from tests.flink_scoring.harness import digit

Serve = Callable[..., ServedModel]
MakeModel = Callable[..., bytes]


@pytest.fixture
def pipeline(pipeline_text: Callable[[str], str]) -> Pipeline:
    return parse_pipeline(pipeline_text("digits") + 'shadow = "staging"\n', where="digits.toml")


def scored_with(
    pipeline: Pipeline, served: ServedModel, shadow: ServedModel | None, count: int = 5
) -> tuple[list[bytes], Scorer]:
    scorer = Scorer(pipeline, largest_dead_value=10**6)
    values = [digit(number) for number in range(count)]
    batch = scorer.score(values, served, shadow=shadow)
    return [value for value in batch.scored if value is not None], scorer


def test_the_shadows_answer_goes_into_the_record_and_decides_nothing(
    pipeline: Pipeline, serve: Serve, constant_model: MakeModel
) -> None:
    served, shadow = serve(constant_model(3)), serve(constant_model(4))
    encoded, _ = scored_with(pipeline, served, shadow)
    stamp = ModelStamp(shadow.name, shadow.version, shadow.generation, shadow.digest)
    for record in map(decode_scored, encoded):
        assert (record.prediction, record.model.version) == (3, served.version)
        assert record.shadow == ShadowAnswer(4, agrees=False, model=stamp)
    assert set(orjson.loads(encoded[0])["shadow"]) == {"prediction", "agrees", "model"}


def test_agreement_is_counted(pipeline: Pipeline, serve: Serve, constant_model: MakeModel) -> None:
    served, shadow = serve(constant_model(3)), serve(constant_model(3, confidence=5.0))
    scorer = Scorer(pipeline, largest_dead_value=10**6)
    batch = scorer.score([digit(1), b"{", digit(2)], served, shadow=shadow)
    tally = batch.shadow
    assert (tally.compared, tally.agreed, tally.failed, tally.skipped) == (2, 2, 0, 0)
    assert tally.by_version == {shadow.version: 2}
    assert batch.by_version == {served.version: 2}


def test_a_shadow_that_cannot_be_run_costs_nothing_but_its_answers(
    pipeline: Pipeline, serve: Serve, constant_model: MakeModel, picky_model: bytes
) -> None:
    served, shadow = serve(constant_model(3)), serve(picky_model, "other")
    scorer = Scorer(pipeline, largest_dead_value=10**6)
    batch = scorer.score([digit(1), digit(11)], served, shadow=shadow)
    assert batch.dead == 0
    assert (batch.shadow.compared, batch.shadow.failed) == (0, 2)
    assert all(decode_scored(value).shadow is None for value in batch.scored if value)


class NoScores:
    """A session whose scores are no numbers."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, feeds: Any, outputs: Any = None) -> dict[str, Any]:
        answers: dict[str, Any] = self._session.run(feeds, outputs)
        return {
            name: np.full_like(each, np.nan) if name != "label" else each for name, each in answers.items()
        }


def test_a_shadow_is_compared_by_its_labels_whatever_its_scores(
    pipeline: Pipeline, serve: Serve, constant_model: MakeModel
) -> None:
    served, shadow = serve(constant_model(3)), serve(constant_model(4), "other")
    shadow = dataclasses.replace(shadow, session=NoScores(shadow.session))  # type: ignore[arg-type]
    batch = Scorer(pipeline, largest_dead_value=10**6).score([digit(1), digit(2)], served, shadow=shadow)
    assert (batch.shadow.compared, batch.shadow.agreed, batch.shadow.failed) == (2, 0, 0)


def test_without_a_shadow_a_record_has_no_such_field(
    pipeline: Pipeline, serve: Serve, constant_model: MakeModel
) -> None:
    encoded, _ = scored_with(pipeline, serve(constant_model(3)), None)
    assert "shadow" not in orjson.loads(encoded[0])


def test_the_model_that_serves_is_not_compared_with_itself(serve: Serve, constant_model: MakeModel) -> None:
    served = serve(constant_model(3))
    assert worth_comparing(served, None) is None
    assert worth_comparing(served, served) is None
    other = serve(constant_model(4))
    assert worth_comparing(served, other) is other


def test_a_shadow_beyond_its_budget_is_skipped_and_the_records_are_scored(
    pipeline: Pipeline, serve: Serve, constant_model: MakeModel
) -> None:
    served, shadow = serve(constant_model(3)), serve(constant_model(4))
    scorer = Scorer(pipeline, largest_dead_value=10**6)
    scorer._shadow._budget.spend(1, 10 * BURST_SECONDS)
    batch = scorer.score([digit(1), digit(2)], served, shadow=shadow)
    assert batch.dead == 0
    assert (batch.shadow.compared, batch.shadow.skipped) == (0, 2)


@given(
    share=st.floats(0.01, 1.0),
    per_row=st.floats(1e-6, 1e-2),
    batches=st.lists(st.tuples(st.integers(1, 5000), st.floats(1e-4, 0.5)), max_size=200),
)
def test_a_shadow_of_steady_cost_stays_within_its_share(
    share: float, per_row: float, batches: list[tuple[int, float]]
) -> None:
    budget, shadow_time, scoring_time = ShadowBudget(share), 0.0, 0.0
    first = True
    for rows, seconds in batches:
        shown = budget.rows(rows)
        assert 0 <= shown <= rows
        if shown:
            cost = shown * per_row
            assert first or cost <= BURST_SECONDS + 1e-9, "one batch waited longer than the limit"
            first = False
            budget.spend(shown, cost)
            shadow_time += cost
        budget.earn(seconds)
        scoring_time += seconds
        assert shadow_time <= share * scoring_time + BURST_SECONDS + 8 * per_row


def test_a_shadow_whose_cost_explodes_is_not_asked_again_until_it_is_paid_for() -> None:
    budget = ShadowBudget(0.5)
    budget.spend(8, 0.0001)
    budget.spend(1000, 2.0)
    asked = 0
    for _ in range(100):
        asked += budget.rows(1000) > 0
        budget.earn(0.01)
    assert asked == 0


@given(st.integers(0, 20).flatmap(lambda n: st.lists(st.booleans(), min_size=n, max_size=n)))
def test_records_with_and_without_a_shadow_share_a_batch(has: list[bool]) -> None:
    from datetime import UTC, datetime

    stamp = ModelStamp("m", 1, 1, "sha256:0")
    fragment = orjson.Fragment(orjson.dumps(ShadowAnswer(1, agrees=True, model=stamp)))
    encoded = encode_scored(
        [1] * len(has),
        np.zeros((len(has), 2)),
        [datetime(2026, 1, 1, tzinfo=UTC)] * len(has),
        [None] * len(has),
        model=stamp,
        shadows=[fragment if each else None for each in has],
    )
    assert [decode_scored(value).shadow is not None for value in encoded] == has


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('shadow = "production"', "the channel that serves already"),
        ('shadow = "no such name!"', "channel"),
        ('shadow = "staging"\nshadow_share = 0', "greater than 0"),
    ],
)
def test_a_shadow_that_makes_no_sense_is_told(
    pipeline_text: Callable[[str], str], line: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        parse_pipeline(pipeline_text("digits") + line, where="digits.toml")
