"""How large a test is: small for every change, full for `make test-all`.

The size is known before test modules are imported, so that they may use it in decorators and parameters.
"""

from __future__ import annotations

import os
from typing import TypeVar

import hypothesis

VARIABLE = "FERRY_TEST_FULL_SIZE"
"""Workers of a run inherit the size by this variable."""

_T = TypeVar("_T")


def is_full_size() -> bool:
    """Whether this run tests everything at full size."""
    return bool(os.environ.get(VARIABLE))


def sized(small: _T, full: _T) -> _T:
    """Returns the first value in `make test`, the second in `make test-all`."""
    return full if is_full_size() else small


def load_hypothesis_profile() -> None:
    """Set the number of examples of every property test that names none: 50, at full size 1,000."""
    hypothesis.settings.register_profile(
        "ferry",
        max_examples=sized(50, 1000),
        deadline=None,  # an example that takes long on a busy machine has found nothing
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("ferry")
