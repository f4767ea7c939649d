from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ferryline.trainer.positions import Placement
from ferryline.trainer.progress import PAST_RANGES, Progress

_placements = st.builds(
    Placement, st.sampled_from(["", "a", "b"]), st.dictionaries(st.integers(0, 2), st.integers(0, 50))
)


@given(st.lists(_placements, max_size=20), st.lists(st.integers(0, 9), min_size=20, max_size=20))
def test_no_range_is_ever_the_wrong_way_round(placements: list[Placement], counts: list[int]) -> None:
    progress = Progress()
    for placement, count in zip(placements, counts, strict=False):
        progress = progress.placed(placement)
        after = {partition: offset + count for partition, offset in placement.offsets.items()}
        progress = progress.advanced(learnt=count, skipped=Counter(), offsets=after, newest=None)
        lineage = progress.lineage("t")
        assert all(part.first <= part.end for part in (*lineage.offsets, *lineage.past))
        assert all(progress.next[partition] == offset for partition, offset in after.items())


def test_ranges_that_were_left_are_kept_up_to_a_number() -> None:
    progress = Progress()
    for number in range(PAST_RANGES + 10):
        progress = progress.placed(Placement(f"{number:032x}", {0: 0}))
        progress = progress.advanced(learnt=1, skipped=Counter(), offsets={0: 1}, newest=None)
    assert len(progress.past) == PAST_RANGES
    assert progress.past[-1].topic_id == f"{PAST_RANGES + 8:032x}"
    assert progress.records == PAST_RANGES + 10


def test_a_progress_is_never_changed() -> None:
    before = Progress(first={0: 1}, next={0: 5}, skipped={"x": 1})
    kept = before.model_copy(deep=True)
    before.placed(Placement("a", {0: 2, 1: 0}))
    before.advanced(learnt=1, skipped=Counter(x=1), offsets={0: 9}, newest=None)
    assert before == kept


def test_topics_that_were_left_are_known_by_their_ids() -> None:
    read = Progress().placed(Placement("a", {0: 0})).model_copy(update={"next": {0: 9}})
    cut = read.placed(Placement("a", {0: 4}))
    assert (len(cut.past), cut.left_topics) == (1, frozenset())
    assert cut.placed(Placement("b", {0: 0})).left_topics == {"a"}
    assert Progress(first={0: 0}, next={0: 3}).placed(Placement("b", {0: 1})).left_topics == frozenset()
