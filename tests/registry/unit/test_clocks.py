from __future__ import annotations

import time

import pytest

from ferryline.registry.clocks import elapsed
from ferryline.registry.documents import utc_now
from ferryline.registry.stores import s3_pool
from ferryline.registry.stores.s3_pool import WatchedPool


def test_a_suspend_counts_where_the_system_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "CLOCK_BOOTTIME", 7, raising=False)
    monkeypatch.setattr(time, "clock_gettime", lambda clock: {7: 3_605.0}[clock], raising=False)
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    assert elapsed() == 3_605.0
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    assert elapsed() == 5.0


@pytest.mark.parametrize(
    "date", ["Tue, 01 Dec 2026 16:36:34 +99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT", "soon"]
)
def test_a_date_that_no_clock_gives_is_passed_over(monkeypatch: pytest.MonkeyPatch, date: str) -> None:
    seconds = iter([0.0, 5.0])
    monkeypatch.setattr(s3_pool, "elapsed", lambda: next(seconds))
    pool = WatchedPool()
    pool._hear(date)
    assert pool.now() <= utc_now()
