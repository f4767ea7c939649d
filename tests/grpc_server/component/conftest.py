"""What a server in the tests' own process may warn of without failing the test."""

from __future__ import annotations

from pathlib import Path

import pytest

# a call that is cancelled before its task begins leaves what the task was to await
_LEFT_UNAWAITED = r"ignore:coroutine '[\w.]*(_awaited|_later|_unpacked)' was never awaited:RuntimeWarning"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings(_LEFT_UNAWAITED))
