"""What a run of pytest took and skipped, written for `tests.run`, which prints it for all tiers together."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest


@dataclass
class TierReport:
    """One run of a tier.

    Attributes:
        seconds: by the clock, collection included.
        outcomes: how many tests passed, failed, were skipped.
        durations: seconds of each test, its fixtures included, by its name.
        skipped: the reason by the name of the test or module.
    """

    seconds: float = 0.0
    outcomes: dict[str, int] = field(default_factory=dict)
    durations: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """Returns the report in a file, or None where a run was cut off before it wrote one."""
        try:
            found: Mapping[str, Any] = json.loads(file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return cls(**found)


class Report:
    """A pytest plugin of the process that leads a run; workers' reports reach it too."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._began = time.monotonic()
        self._durations: defaultdict[str, float] = defaultdict(float)
        self._outcomes: Counter[str] = Counter()
        self._skipped: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("@")[0]
        self._durations[name] += report.duration
        if report.skipped:
            self._skipped[name] = _reason(report)
        if report.failed or report.when == "call" or (report.when == "setup" and report.skipped):
            self._outcomes[report.outcome] += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._skipped[report.nodeid] = _reason(report)

    def pytest_sessionfinish(self) -> None:
        if self._file is None:
            return
        seconds = time.monotonic() - self._began
        found = TierReport(seconds, dict(self._outcomes), dict(self._durations), self._skipped)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(asdict(found)))


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    told = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return str(told).removeprefix("Skipped: ")
