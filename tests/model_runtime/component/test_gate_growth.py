"""What the helper of the load gate counts as its own memory."""

from __future__ import annotations

import resource
import subprocess
import sys

from tests.support.waiting import DEADLINE

PROGRAM = """
import resource
from ferryline.model_runtime.gate.keeper_process import resident_bytes
print(resident_bytes(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
BULK = 300 << 20


def test_what_a_helper_has_is_not_what_the_program_had_that_started_it() -> None:
    bulk = b"\1" * BULK
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > BULK
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=DEADLINE)
    resident, peak = map(int, done.stdout.split())
    del bulk
    assert resident < BULK
    assert resident < peak
