"""Reads a running job's metrics over Flink's REST interface."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tests.flink_scoring.harness import ScoringJob

_SHOWN = re.compile(r"\.online_ml\.(.+)$")
_DISTRIBUTION = re.compile(r"(\w+)=(-?\d+)")

Shown = float | dict[str, int]


def job_metrics(job: ScoringJob) -> dict[str, Shown]:
    """Every metric of the group `online_ml` of this pipeline by its name, those of several subtasks summed.

    A distribution is a dict of sum, count, min and max, that of the last subtask.
    """
    found: dict[str, Shown] = {}
    for name, value in _all_values(job):
        shown = _SHOWN.search(name)
        if shown is None:
            continue
        if "{" in value:
            found[shown[1]] = {key: int(number) for key, number in _DISTRIBUTION.findall(value)}
            continue
        before = found.get(shown[1], 0.0)
        found[shown[1]] = float(value) + (before if isinstance(before, float) else 0.0)
    return found


def has(job: ScoringJob, **expected: object) -> Callable[[], bool]:
    """A condition: the metrics have these values."""
    return lambda: expected.items() <= job_metrics(job).items()


def _all_values(job: ScoringJob) -> Iterator[tuple[str, str]]:
    for vertex in _vertices(job):
        path = f"/vertices/{vertex}/metrics"
        names = [each["id"] for each in job.ask(path) if "online_ml" in each["id"]]
        if names:
            for each in job.ask(path, get=",".join(names)):
                yield each["id"], each["value"]


def _vertices(job: ScoringJob) -> list[str]:
    """Those that run a function of this pipeline."""
    functions = [f"{name}(" for each in ("ferry_score", "ferry_judge") for name in job.named(each)]
    nodes = job.ask("/plan")["plan"]["nodes"]
    return [node["id"] for node in nodes if any(name in node["description"] for name in functions)]
