"""The ratchet of a channel, advanced by several processes at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ferryline.registry.ratchet import Mark, Ratchet
from tests.support.waiting import DEADLINE

RACER = """
import sys
from pathlib import Path
from types import SimpleNamespace
from ferryline.registry.ratchet import Ratchet
state, first = Path(sys.argv[1]), int(sys.argv[2])
it = Ratchet(state, "s3://x", "digits", "production")
highest = 0
for generation in range(first, 201, 4):
    it.advance(SimpleNamespace(generation=generation, digest=f"sha256:{generation:064x}"))
    mark = it.mark()
    assert mark.generation >= max(generation, highest), (mark, generation, highest)
    assert mark.digest == f"sha256:{mark.generation:064x}"
    highest = mark.generation
"""


def test_processes_may_share_a_ratchet(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path), str(first)]) for first in range(1, 5)
    ]
    assert [racer.wait(DEADLINE) for racer in racers] == [0, 0, 0, 0]
    assert Ratchet(tmp_path, "s3://x", "digits", "production").mark() == Mark(200, f"sha256:{200:064x}")
