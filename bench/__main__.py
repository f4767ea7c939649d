"""`make bench`: every benchmark in a process of its own, one table at the end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import orjson

from bench.measure import Comparison, parse_arguments, report

BENCHMARKS = (
    "trainer",
    "registry",
    "grpc_unary",
    "grpc_peers",
    "grpc_swaps",
    "grpc_fleet",
    "flink_start",
    "flink_job",
    "flink_peers",
    "flink_sql",
    "flink_latency",
    "flink_memory",
)


def run(name: str, folder: Path, *, quick: bool) -> list[Comparison]:
    """Run one benchmark and read what it found."""
    result = folder / f"{name}.json"
    command = [sys.executable, "-m", f"bench.{name}", "--json", str(result), *(["--quick"] if quick else [])]
    sys.stderr.write(f"running {name}\n")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return [Comparison(**item) for item in orjson.loads(result.read_bytes())]


def main() -> None:
    """Run them all."""
    arguments = parse_arguments(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        found = [run(name, Path(folder), quick=arguments.quick) for name in BENCHMARKS]
    report([comparison for comparisons in found for comparison in comparisons], arguments)


if __name__ == "__main__":
    main()
