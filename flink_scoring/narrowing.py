"""Numbers in the dtype that a model takes, by one rule for records and for SQL."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def narrow(numbers: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.floating[Any]]:
    """Returns the numbers as floats of `dtype`; a finite one beyond it becomes its largest one.

    So it stays on its side of each threshold, as in the estimator. An infinite one would make NaN of what it
    meets, a product with the weight 0 included.
    """
    with np.errstate(over="ignore"):
        cast: npt.NDArray[np.floating[Any]] = numbers.astype(dtype, copy=False)
    beyond = np.isinf(cast)
    if beyond.any():
        beyond &= np.isfinite(numbers)
    if beyond.any():  # else it may be `numbers` itself, which nobody may write to
        cast[beyond] = np.copysign(np.finfo(cast.dtype).max, numbers[beyond])
    return cast
