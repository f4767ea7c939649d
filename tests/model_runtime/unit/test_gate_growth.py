from __future__ import annotations

import resource
import subprocess
import sys

PROGRAM = """
import resource
from model_runtime.gate.keeper_process import resident_bytes
print(resident_bytes(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
BULK = 300 << 20


def test_what_a_helper_has_is_not_what_the_program_had_that_started_it() -> None:
    bulk = b"\1" * BULK
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > BULK
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    resident, peak = map(int, done.stdout.split())
    del bulk
    assert resident < BULK
    assert resident < peak
