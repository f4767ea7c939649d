import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ferryline.trainer.ring import Ring


@given(st.integers(1, 7), st.lists(st.integers(0, 9), max_size=8), st.integers(0, 12))
def test_a_ring_keeps_the_newest_rows_in_order(capacity: int, chunks: list[int], asked: int) -> None:
    ring, everything = Ring(capacity, 2), np.zeros((0, 2))
    for chunk in chunks:
        rows = len(everything) + np.arange(chunk * 2, dtype=float).reshape(chunk, 2)
        ring.extend(rows)
        everything = np.vstack([everything, rows])
    kept = everything[-capacity:] if len(everything) else everything
    assert len(ring) == len(kept)
    assert ring.newest().tolist() == kept.tolist()
    assert ring.newest(asked).tolist() == kept[len(kept) - min(asked, len(kept)) :].tolist()
