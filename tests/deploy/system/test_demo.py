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

from tests.support.sizes import sized
from tests.support.waiting import DEADLINE

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


@pytest.mark.early
def test_the_scripted_demo_does_everything_it_says(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    done = subprocess.run(
        [FERRY_DEMO, "--seconds", "900", "--home", home],  # it ends as soon as the script is played
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    summary = orjson.loads(done.stdout.splitlines()[-1])
    assert summary["versions_published"] >= 4
    assert summary["records_in"] == summary["records_scored"] + summary["records_dead_lettered"]
    assert summary["records_dead_lettered"] > 0
    assert summary["failed_requests"] == 0
    assert summary["requests"] > 0
    assert min(summary["accuracy_by_version"].values()) > 0.8
    for seen in summary["generations_seen"].values():
        assert len(seen) >= 4
        assert seen[-1] == summary["rollback"]["generation"]
    assert children_left(home) == []


# the later it comes, the more has been started at great cost
@pytest.mark.parametrize(
    "moment", sized(["starting jobmanager"], ["starting jobmanager", "starting the trainer"])
)
def test_ctrl_c_ends_a_starting_demo_and_leaves_nothing(tmp_path: Path, moment: str) -> None:
    home = tmp_path / "demo"
    process = subprocess.Popen(
        [FERRY_DEMO, "--home", home], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if moment in line:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert children_left(home) == []
