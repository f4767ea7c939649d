from __future__ import annotations

import numpy as np
import pytest

from ferryline.flink_scoring.narrowing import narrow


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_number_stays_on_its_side_and_what_is_no_number_stays_what_it_is(dtype: str) -> None:
    largest = float(np.finfo(dtype).max)
    given = np.array([[1.5, np.inf, -np.inf, np.nan, np.finfo(np.float64).max, np.finfo(np.float64).min]])
    kept = given.copy()
    given.flags.writeable = False  # as Flink's columns are
    np.testing.assert_array_equal(narrow(given, dtype), [[1.5, np.inf, -np.inf, np.nan, largest, -largest]])
    np.testing.assert_array_equal(given, kept)
