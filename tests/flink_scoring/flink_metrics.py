"""Reads a running job's metrics over Flink's REST interface."""

from __future__ import annotations

import re
from typing import Any

import httpx

from tests.flink_scoring.harness import ScoringJob

_SHOWN = re.compile(r"\.online_ml\.(.+)$")
_DISTRIBUTION = re.compile(r"(\w+)=(-?\d+)")


def job_metrics(job: ScoringJob) -> dict[str, float | dict[str, int]]:
    """Every metric of the group `online_ml` of all subtasks by its name, counters of several summed.

    A distribution is a dict of sum, count, min and max.
    """
    found: dict[str, float | dict[str, int]] = {}
    for name, value in _all_values(job):
        shown = _SHOWN.search(name)
        if shown is None:
            continue
        if "{" in value:
            found[shown[1]] = {key: int(number) for key, number in _DISTRIBUTION.findall(value)}
        else:
            found[shown[1]] = float(value)
    return found


def _all_values(job: ScoringJob) -> list[tuple[str, str]]:
    values = []
    for vertex in _get(job, "")["vertices"]:
        path = f"/vertices/{vertex['id']}/metrics"
        names = [each["id"] for each in _get(job, path) if "online_ml" in each["id"]]
        for name in names:
            answer = _get(job, path, get=name)
            values += [(each["id"], each["value"]) for each in answer]
    return values


def _get(job: ScoringJob, path: str, **query: str) -> Any:
    base = f"{job.stack.addresses().flink}/jobs/{job.job_id}"
    return httpx.get(f"{base}{path}", params=query, timeout=10).raise_for_status().json()
