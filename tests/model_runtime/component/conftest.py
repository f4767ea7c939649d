"""One keeper of the load gate for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ferryline.model_runtime.gate import GateKeeper


@pytest.fixture(scope="module")
def keeper() -> Iterator[GateKeeper]:
    """A keeper for all tests of which none looks at its start."""
    made = GateKeeper()
    yield made
    made.stop()
