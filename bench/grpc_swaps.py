"""Swaps under constant load: no request fails, each reply is by one version, latency and memory stay flat.

One process calls at a constant rate and keeps every reply, this one promotes versions. All files of the small
model are distinct; the eight 64 MB ones come round again, each when it is warm no more, so that it is loaded
again but not downloaded and judged. Each version answers differently, so a reply is held against what ONNX
Runtime gives here for the version that the reply names.

A window lasts from the promotion to a tenth of a second after the first reply by the new version: download,
load gate, load, warm-up, swap and release lie in it, on the same two cores as client and server. The rest is
steady. Promotions are this far apart: the server polls every 50 ms instead of every second.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import numpy as np

from bench.grpc_caller import digest
from bench.grpc_servers import Target, ferry_server
from bench.grpc_unary import MODEL
from bench.measure import Comparison, compare, parse_arguments, report
from bench.swap_models import average_request, average_row, digits_versions, wide_versions
from ferryline.model_runtime.facts import read_facts
from ferryline.model_runtime.session import OnnxSession
from ferryline.registry.catalogue import Registry
from ferryline.trainer.export import INPUT

AFTER = 0.1
BETWEEN = 0.15
STEADY = 5.0
LONGEST_SWAP = 30.0
WARM = 5
"""From so many swaps on, as many versions stay warm as ever will: the server's default."""
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Plan:
    """One model to swap.

    Args:
        name: in the table.
        versions: gives so many files.
        distinct: how many files there are; they come round when there are more swaps.
        swaps: how many.
        rate: requests per second meanwhile.
        chunks: into how many parts the run is cut for the ratios.
    """

    name: str
    versions: Callable[[int], Iterator[bytes]]
    distinct: int
    swaps: int
    rate: float
    chunks: int


QUICK = [
    Plan("digits", digits_versions, 30, 30, 400, 3),
    Plan("64 MB", wide_versions, 4, 8, 40, 1),
]
FULL = [
    Plan("digits", digits_versions, 1000, 1000, 400, 10),
    Plan("64 MB", wide_versions, 8, 1000, 40, 10),
]


@dataclass(frozen=True, slots=True)
class Found:
    """What a run found; times are of the monotonic clock."""

    windows: list[tuple[float, float]]
    calls: dict[str, Any]
    before: int
    after: int


class CallerProcess:
    """`bench.grpc_caller`, and the versions it has seen."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._seen: Queue[tuple[int, float]] = Queue()
        self._process = process
        Thread(target=self._read, daemon=True).start()

    def first_reply(self, version: int) -> float:
        """When `version` answered first; waits for it."""
        while True:
            seen, when = self._seen.get(timeout=LONGEST_SWAP)
            if seen == version:
                return when

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            version, when = line.split()
            self._seen.put((int(version), float(when)))


@contextmanager
def calling(target: Target, folder: Path, rate: float) -> Iterator[CallerProcess]:
    """Constant load; its result is in `folder` afterwards."""
    request, result = folder / "request", folder / "calls.npz"
    request.write_bytes(average_request())
    command = [
        sys.executable,
        "-m",
        "bench.grpc_caller",
        target.address,
        str(request),
        str(rate),
        str(result),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield CallerProcess(process)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(60) == 0
        finally:
            process.terminate()


def publish(plan: Plan, registry: Registry, folder: Path) -> tuple[dict[int, str], int]:
    """Publish every file; what each version answers, and the size of the largest."""
    expected, largest, file = {}, 0, folder / "model.onnx"
    for data in plan.versions(plan.distinct):
        version = registry.publish(MODEL, data, read_facts(data)).version
        file.write_bytes(data)
        results = OnnxSession(file).run({INPUT: average_row()})
        expected[version] = digest([array.tobytes() for array in results.values()])
        largest = max(largest, len(data))
    assert len(set(expected.values())) == plan.distinct, "two versions answer the same"
    return expected, largest


def swap(plan: Plan, registry: Registry, store: str, folder: Path, versions: list[int]) -> Found:
    """Swap under load."""
    registry.promote(MODEL, versions[0])
    with (
        ferry_server(store, folder / "cache", [MODEL], "--poll-seconds", "0.05") as server,
        calling(server, folder, plan.rate) as caller,
    ):
        caller.first_reply(versions[0])
        time.sleep(STEADY)
        windows, before = [], 0
        for number in range(1, plan.swaps + 1):
            version = versions[number % len(versions)]
            promoted = time.monotonic()
            registry.promote(MODEL, version)
            windows.append((promoted, caller.first_reply(version) + AFTER))
            time.sleep(AFTER + BETWEEN)
            if number == WARM:
                before = server.resident_bytes()
        time.sleep(STEADY)
        after = server.resident_bytes()
    return Found(windows, dict(np.load(folder / "calls.npz")), before, after)


def require_right_replies(plan: Plan, found: Found, expected: dict[int, str]) -> None:
    """No request failed, and every reply is what the version gives that it names."""
    failures, outputs = found.calls["failures"], found.calls["outputs"]
    wrong = [line for line in outputs if expected[int(line.split()[0])] != line.split()[1]]
    seconds = [end - AFTER - begin for begin, end in found.windows]
    sys.stderr.write(
        f"{plan.name}: {plan.swaps:,} swaps, {len(found.calls['begun']):,} requests, {len(failures)} failed, "
        f"{len(wrong)} replies by no single version; promotion to first reply {np.median(seconds):.3f} s "
        f"(median), {max(seconds):.3f} s (longest)\n"
    )
    assert not len(failures), failures[:3]
    assert not wrong, wrong[:3]


def latencies(plan: Plan, found: Found) -> list[tuple[float, float]]:
    """The 99th percentile in and out of windows, in ms, for each part of the run."""
    begun, seconds = found.calls["begun"], found.calls["seconds"]
    within = np.zeros(len(begun), bool)
    for begin, end in found.windows:
        within |= (begun + seconds >= begin) & (begun <= end)
    edges = np.linspace(begun.min(), begun.max() + 1e-9, plan.chunks + 1)
    pairs = []
    for start, stop in itertools.pairwise(edges):
        part = (begun >= start) & (begun < stop)
        pairs.append(
            (
                float(np.percentile(seconds[part & within], 99) * 1000),
                float(np.percentile(seconds[part & ~within], 99) * 1000),
            )
        )
    return pairs


def measure(plan: Plan, folder: Path) -> Iterator[Comparison]:
    """One model."""
    folder.mkdir()
    store = (folder / "registry").as_uri()
    registry = Registry.open(store, actor="bench")
    expected, largest = publish(plan, registry, folder)
    found = swap(plan, registry, store, folder, sorted(expected))
    require_right_replies(plan, found, expected)
    what = f"{plan.swaps:,} swaps at {plan.rate:g}/s, {plan.name}"
    yield compare(f"{what}: p99 in windows", "ms", "steady p99", latencies(plan, found))
    allowed = (found.before + largest) / MIB
    yield compare(f"{what}: memory after", "MiB", "before + one model", [(found.after / MIB, allowed)])


def main() -> None:
    """Print the comparisons."""
    arguments = parse_arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        found = [
            comparison
            for plan in (QUICK if arguments.quick else FULL)
            for comparison in measure(plan, Path(folder) / plan.name.replace(" ", "-"))
        ]
    report(found, arguments)


if __name__ == "__main__":
    main()
