from __future__ import annotations

import time

import pytest

from ferryline.registry.clocks import elapsed


def test_a_suspend_counts_where_the_system_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "CLOCK_BOOTTIME", 7, raising=False)
    monkeypatch.setattr(time, "clock_gettime", lambda clock: {7: 3_605.0}[clock], raising=False)
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    assert elapsed() == 3_605.0
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    assert elapsed() == 5.0
