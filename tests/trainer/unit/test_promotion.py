import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.registry.documents import Canary, ChannelEntry, Operation, utc_now
from ferryline.streams.pipeline import PromotionMode, PromotionSpec
from ferryline.trainer.promotion import Candidate, Served, Serving, decide, recently_served

ALWAYS = PromotionSpec(mode=PromotionMode.ALWAYS, min_records=500)
NO_WORSE = PromotionSpec(mode=PromotionMode.NO_WORSE, min_records=500, min_accuracy=0.5, max_drop=0.02)
GOOD = Candidate(version=7, records=1000, accuracy=0.9)


WIDE = NO_WORSE.model_copy(update={"max_drop_from_best": 0.1})


def serving(
    version: int = 6,
    *,
    held: bool = False,
    accuracy: float | None = 0.9,
    canary: int | None = None,
    recent: tuple[float | None, ...] = (),
) -> Serving:
    served = tuple(Served(version - place, known) for place, known in enumerate(recent))
    return Serving(version, 3, held, accuracy, canary, served)


@pytest.mark.parametrize(
    ("spec", "candidate", "now", "promoted", "reason"),
    [
        (ALWAYS, GOOD, None, True, "always: accuracy 0.9000 after 1000 records"),
        (ALWAYS, GOOD, serving(accuracy=1.0), True, "version 6 had 1.0000"),
        (ALWAYS, Candidate(7, 499, 0.9), None, False, "min_records is 500"),
        (ALWAYS, Candidate(7, 500, None), None, True, "accuracy unknown"),
        (ALWAYS, GOOD, serving(held=True), False, "held at version 6"),
        (ALWAYS, GOOD, serving(version=7), False, "version 7 serves already"),
        (ALWAYS, GOOD, serving(version=8), False, "version 8 serves already"),
        (ALWAYS, Candidate(7, 1000, 0.9, "sha256:new"), serving(version=7), True, "always"),
        (NO_WORSE, GOOD, serving(accuracy=0.919), True, "no_worse"),
        (NO_WORSE, GOOD, serving(accuracy=0.93), False, "more than 0.02 below the 0.9300 of version 6"),
        (NO_WORSE, GOOD, serving(accuracy=None), True, "no_worse"),
        (NO_WORSE, Candidate(7, 1000, None), serving(), False, "accuracy unknown is below min_accuracy"),
        (NO_WORSE, Candidate(7, 1000, 0.4), None, False, "accuracy 0.4000 is below min_accuracy 0.5"),
        (PromotionSpec(mode=PromotionMode.MANUAL), GOOD, None, False, "manual"),
        (ALWAYS, GOOD, serving(canary=5), False, "version 5 runs as a canary beside version 6"),
        (NO_WORSE, GOOD, serving(recent=(0.93, 0.94, None)), True, "no_worse"),
        (NO_WORSE, GOOD, serving(recent=(0.9, 0.941)), False, "more than 0.04 below the 0.9410 of version 5"),
        (NO_WORSE, GOOD, serving(accuracy=None, recent=(None, 0.95)), False, "a person promotes"),
        (WIDE, GOOD, serving(recent=(0.9, 0.999)), True, "no_worse"),
        (ALWAYS, GOOD, serving(recent=(0.9, 1.0)), True, "always"),
    ],
)
def test_the_policy(
    spec: PromotionSpec, candidate: Candidate, now: Serving | None, promoted: bool, reason: str
) -> None:
    verdict = decide(spec, candidate, now)
    assert verdict.promote is promoted
    assert reason in verdict.reason


_candidates = st.builds(
    Candidate, st.integers(1, 9), st.integers(0, 2000), st.none() | st.floats(0, 1, allow_nan=False)
)
_serving = st.none() | st.builds(
    Serving, st.integers(1, 9), st.integers(1, 9), st.booleans(), st.none() | st.floats(0, 1)
)
_specs = st.builds(
    PromotionSpec,
    mode=st.sampled_from(PromotionMode),
    min_records=st.integers(0, 1000),
    min_accuracy=st.floats(0, 1),
    max_drop=st.floats(0, 1),
)


@given(_specs, _candidates, _serving)
def test_no_policy_passes_a_hold_or_goes_back(
    spec: PromotionSpec, candidate: Candidate, now: Serving | None
) -> None:
    verdict = decide(spec, candidate, now)
    assert verdict.reason
    if verdict.promote:
        assert spec.mode is not PromotionMode.MANUAL
        assert candidate.records >= spec.min_records
        assert now is None or (not now.held and now.version < candidate.version)


def entry(
    generation: int, operation: Operation, *, automatic: bool = False, canary: bool = False
) -> ChannelEntry:
    digest = "sha256:" + "0" * 64
    beside = Canary(version=9, blob_digest=digest, manifest_digest=digest, percent=5) if canary else None
    return ChannelEntry(
        model="m",
        channel="production",
        generation=generation,
        version=generation,
        blob_digest=digest,
        manifest_digest=digest,
        operation=operation,
        automatic=automatic,
        actor="someone",
        at=utc_now(),
        op_id="0",
        previous=None,
        canary=beside,
    )


def test_the_standard_goes_back_to_what_a_person_last_chose() -> None:
    entries = [
        entry(7, Operation.PROMOTE, automatic=True),
        entry(6, Operation.RELEASE),
        entry(5, Operation.HOLD),
        entry(4, Operation.PROMOTE, canary=True),
        entry(3, Operation.PROMOTE, automatic=True),
        entry(2, Operation.ROLLBACK),
        entry(1, Operation.PROMOTE, automatic=True),
    ]
    assert [found.generation for found in recently_served(entries)] == [7, 3, 2]
    assert recently_served([]) == []


def test_the_rollback_of_a_canary_sets_no_standard() -> None:
    entries = [
        entry(4, Operation.ROLLBACK).model_copy(update={"version": 2}),
        entry(3, Operation.PROMOTE, canary=True).model_copy(update={"version": 2}),
        entry(2, Operation.PROMOTE, automatic=True),
        entry(1, Operation.PROMOTE, automatic=True),
    ]
    assert [found.generation for found in recently_served(entries)] == [2, 1]


@given(st.lists(st.floats(-0.05, 0.05), max_size=60), st.integers(1, 30))
def test_no_walk_falls_further_than_allowed_within_the_window(steps: list[float], best_of: int) -> None:
    spec = PromotionSpec(mode=PromotionMode.NO_WORSE, min_records=0, best_of=best_of)
    served = [Served(1, 0.9)]
    for step in steps:
        now = Serving(
            served[0].version, 1, held=False, accuracy=served[0].accuracy, recent=tuple(served[:best_of])
        )
        candidate = Candidate(now.version + 1, 0, min(1.0, max(0.0, (now.accuracy or 0.0) + step)))
        if decide(spec, candidate, now).promote:
            served.insert(0, Served(candidate.version, candidate.accuracy))
            best = max(each.accuracy or 0.0 for each in served[1 : best_of + 1])
            assert (candidate.accuracy or 0.0) >= best - spec.drop_from_best
