from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import structlog, sys
from registry.logs import configure_logs
configure_logs()
for number in range(10000):
    structlog.get_logger().info("line", number=number)
print("reached the end")
"""


def test_a_log_that_nobody_reads_stops_nothing_and_changes_no_exit_status() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=writer, text=True, check=False
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stdout) == (0, "reached the end\n")
