"""`make demo` as a script: everything real, played to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import psutil
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

FERRY_DEMO = Path(sys.executable).with_name("ferry-demo")


def children_left(home: Path) -> list[str]:
    """Processes whose command line or environment names the demo's home."""
    found = []
    for process in psutil.process_iter():
        try:
            text = " ".join(process.cmdline()) + " ".join(process.environ().values())
        except psutil.Error:
            continue
        if str(home) in text and process.pid != os.getpid():
            found.append(" ".join(process.cmdline())[:200])
    return found


def test_the_scripted_demo_does_everything_it_says(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    done = subprocess.run(
        [FERRY_DEMO, "--seconds", "480", "--home", home],
        capture_output=True,
        text=True,
        timeout=1100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    summary = orjson.loads(done.stdout.splitlines()[-1])
    assert summary["versions_published"] >= 4
    assert summary["records_in"] == summary["records_scored"] + summary["records_dead_lettered"]
    assert summary["records_dead_lettered"] > 0
    assert summary["failed_requests"] == 0
    assert summary["requests"] > 100
    assert min(summary["accuracy_by_version"].values()) > 0.8
    for seen in summary["generations_seen"].values():
        assert len(seen) >= 4
        assert seen[-1] == summary["rollback"]["generation"]
    assert children_left(home) == []


def test_ctrl_c_ends_a_starting_demo_and_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    process = subprocess.Popen(
        [FERRY_DEMO, "--home", home], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "starting the trainer" in line:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=90)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert children_left(home) == []
