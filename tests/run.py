"""Run tiers of tests one after the other, and print at the end what they took: `python -m tests.run unit …`.

Ends with the first tier that fails, whose exit status is its own.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from tests.support.report import TierReport
from tests.support.tiers import Tier, package_of

FOLDER = Path(".tools") / "test-reports"
WORKERS = 2
SLOWEST = 10

_TIERS = {str(tier): tier for tier in Tier}


def main() -> int:
    """Run what the command line names; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.run", description=__doc__)
    parser.add_argument("steps", nargs="+", metavar="STEP", choices=["lint", *_TIERS], help="lint or a tier")
    parser.add_argument("--full-size", action="store_true", help="run everything at full size")
    parser.add_argument("--keep-going", action="store_true", help="run later steps after one has failed")
    parser.add_argument("--pytest", default="", metavar="ARGUMENTS", help="further arguments for pytest")
    arguments = parser.parse_args()
    summary = Summary()
    status = 0
    try:
        for step in arguments.steps:
            failed = summary.run(step, full_size=arguments.full_size, more=shlex.split(arguments.pytest))
            status = status or failed
            if status and not arguments.keep_going:
                break
    except KeyboardInterrupt:
        status = 130
    summary.show()
    return status


class Summary:
    """What the steps of one run took."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._reports: dict[Tier, TierReport] = {}

    def run(self, step: str, *, full_size: bool, more: Sequence[str]) -> int:
        """Run a step; returns its exit status."""
        print(f"\n== {step} ==", flush=True)
        began = time.monotonic()
        report = FOLDER / f"{step}.json"
        report.unlink(missing_ok=True)
        tier = _TIERS.get(step)
        command = ["make", "--no-print-directory", "lint"]
        if tier is not None:
            command = _pytest(tier, report, full_size=full_size, more=more)
        try:
            return _run(command)
        finally:
            self._seconds[step] = time.monotonic() - began
            if tier is not None and (found := TierReport.read(report)) is not None:
                self._reports[tier] = found

    def show(self) -> None:
        """Print the time of each step and package, the slowest tests, and what was skipped and why."""
        if self._reports:
            self._show_packages()
            self._show_slowest()
            self._show_skipped()
        print("\ntime of each step")
        for step, seconds in self._seconds.items():
            report = self._reports.get(_TIERS[step]) if step in _TIERS else None
            counts = sorted(report.outcomes.items()) if report else []
            outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts)
            print(f"  {step:<10} {_clock(seconds):>8}  {outcomes}")
        print(f"  {'all':<10} {_clock(sum(self._seconds.values())):>8}", flush=True)

    def _show_packages(self) -> None:
        taken: defaultdict[str, defaultdict[Tier, float]] = defaultdict(lambda: defaultdict(float))
        for tier, report in self._reports.items():
            for name, seconds in report.durations.items():
                taken[package_of(name.partition("::")[0])][tier] += seconds
        print(f"\nseconds of each package's tests, {WORKERS} at a time")
        print(f"  {'':<16}" + "".join(f"{tier:>11}" for tier in self._reports))
        for package in sorted(taken):
            print(f"  {package:<16}" + "".join(f"{taken[package][tier]:>11.1f}" for tier in self._reports))

    def _show_slowest(self) -> None:
        every = [item for report in self._reports.values() for item in report.durations.items()]
        print(f"\nthe {SLOWEST} slowest tests, with the fixtures that they were the first to need")
        for name, seconds in sorted(every, key=lambda item: -item[1])[:SLOWEST]:
            print(f"  {seconds:>7.1f} s  {name}")

    def _show_skipped(self) -> None:
        reasons: defaultdict[str, list[str]] = defaultdict(list)
        for report in self._reports.values():
            for name, reason in report.skipped.items():
                reasons[reason].append(name)
        print("\nskipped" if reasons else "\nnothing was skipped")
        for reason, names in sorted(reasons.items()):
            print(f"  {len(names)} times: {reason}")
            for name in names[:3]:
                print(f"      {name}")


def _pytest(tier: Tier, report: Path, *, full_size: bool, more: Sequence[str]) -> list[str]:
    command = [sys.executable, "-m", "pytest", "--tier", tier, "--report", str(report)]
    # tests of a file run on one worker, which keeps what its fixtures started; those without any run anywhere
    spread = "worksteal" if tier is Tier.UNIT else "loadfile"
    command += ["-q", "-n", str(WORKERS), "--dist", spread, "--no-loadscope-reorder"]
    return [*command, *(["--full-size"] if full_size else []), *more]


def _run(command: Sequence[str]) -> int:
    """Run a command to its end; Ctrl-C reaches it too, and it is waited for while it tidies up."""
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


if __name__ == "__main__":
    sys.exit(main())
