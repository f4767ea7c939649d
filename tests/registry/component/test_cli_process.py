"""How a command ends as a process: closed streams, full disks, the shell's questions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.waiting import DEADLINE

FERRY = [sys.executable, "-c", "from ferryline.registry.cli.app import main; main()"]


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, text=True, check=False, timeout=DEADLINE, **options)


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&- <&-"])
def test_a_closed_stream_is_no_fault(store_url: str, closed: str) -> None:
    command = ["sh", "-c", f'"$@" {closed}', "sh", *FERRY, "promote", "digits@1", "--store", store_url]
    done = run(command, capture_output=True)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    lost = run([*command[:-3], "digits@9", *command[-2:]], capture_output=True)
    assert (lost.returncode, "Traceback" in lost.stderr) == (3, False)


@pytest.mark.parametrize("output", ["json", "table"])
def test_a_full_disk_under_the_result_is_said_so(store_url: str, output: str) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [*FERRY, "list", "-o", output, "--store", store_url]
        done = run(command, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, "error: [Errno 28] No space left on device\n")


def completions(typed: str, store_url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    words = typed.split(" ")
    asked = {
        "_FERRY_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
        "FERRY_STORE": store_url,
    }
    script = "import sys; sys.argv = ['ferry']; from ferryline.registry.cli.app import main; main()"
    command = [sys.executable, "-c", script]
    return run(command, env={**os.environ, **asked, **environment}, capture_output=True)


@pytest.mark.usefixtures("published")
def test_the_shell_is_answered(store_url: str) -> None:
    done = completions("ferry promote digits@", store_url)
    assert (done.stdout.split(), done.stderr) == (["digits@3", "digits@2", "digits@1"], "")


def test_a_store_that_fails_is_not_told_to_the_shell() -> None:
    done = completions("ferry show dig", "s3://models?endpoint=http://127.0.0.1:1")
    assert (done.stdout.strip(), done.stderr) == ("", "")


TALKATIVE = """
import structlog, sys
from ferryline.registry.logs import configure_logs
configure_logs()
for number in range(10000):
    structlog.get_logger().info("line", number=number)
print("reached the end")
"""


def test_a_log_that_nobody_reads_stops_nothing_and_changes_no_exit_status() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run([sys.executable, "-c", TALKATIVE], stdout=subprocess.PIPE, stderr=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stdout) == (0, "reached the end\n")
