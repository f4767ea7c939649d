"""Retries come soon, so that no test waits for a back-off."""

from __future__ import annotations

import pytest

from ferryline.model_runtime.follower import rules


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "FIRST_RETRY", 0.02)
