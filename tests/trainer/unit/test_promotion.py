import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferryline.streams.pipeline import PromotionMode, PromotionSpec
from ferryline.trainer.promotion import Candidate, Serving, decide

ALWAYS = PromotionSpec(mode=PromotionMode.ALWAYS, min_records=500)
NO_WORSE = PromotionSpec(mode=PromotionMode.NO_WORSE, min_records=500, min_accuracy=0.5, max_drop=0.02)
GOOD = Candidate(version=7, records=1000, accuracy=0.9)


def serving(version: int = 6, *, held: bool = False, accuracy: float | None = 0.9) -> Serving:
    return Serving(version=version, generation=3, held=held, accuracy=accuracy)


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
        (NO_WORSE, GOOD, serving(accuracy=0.919), True, "no_worse"),
        (NO_WORSE, GOOD, serving(accuracy=0.93), False, "more than 0.02 below the 0.9300 of version 6"),
        (NO_WORSE, GOOD, serving(accuracy=None), True, "no_worse"),
        (NO_WORSE, Candidate(7, 1000, None), serving(), False, "accuracy unknown is below min_accuracy"),
        (NO_WORSE, Candidate(7, 1000, 0.4), None, False, "accuracy 0.4000 is below min_accuracy 0.5"),
        (PromotionSpec(mode=PromotionMode.MANUAL), GOOD, None, False, "manual"),
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
