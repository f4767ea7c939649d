"""Plays histories by hand: `python -m tests.simulation 30`, or `0:900` to count what they break.

`--shortest` leaves out of a failing history all that can be left out; `--keep NAME` adds the shortest history
of one invariant to the list of those that are played in every run of the tests.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable

from tests.simulation.invariants import Invariant
from tests.simulation.kept import Kept, keep
from tests.simulation.play import Failure, failures, shortest
from tests.simulation.profiles import script_of
from tests.simulation.substitutes import simulated


def main() -> int:
    """Play what the command line names; 1 where something is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", help="a seed, or a range of them as FIRST:BEYOND")
    parser.add_argument("--shortest", action="store_true", help="shorten what fails")
    parser.add_argument("--only", choices=[each.name for each in Invariant], help="this invariant alone")
    parser.add_argument("--keep", metavar="NAME", help="keep the first one, as what is at fault in it")
    arguments = parser.parse_args()
    first, _, beyond = arguments.seeds.partition(":")
    seeds = range(int(first), int(beyond) if beyond else int(first) + 1)
    wanted = list(Invariant) if arguments.only is None else [Invariant[arguments.only]]
    with simulated():
        found = list(failures(seeds))
        if not beyond and not found:
            print(script_of(seeds[0]))
        broken = _by_invariant(found, wanted)
        for invariant, failed in broken.items():
            print(f"== {invariant.name}: {invariant}: {len(failed)} of {len(seeds)} histories")
            print(f"   seeds {' '.join(str(each.seed) for each in failed[:20])}")
            short = shortest(failed[0], invariant) if arguments.shortest or arguments.keep else None
            print(short or failed[0].told(invariant))
            if short is not None and arguments.keep:
                keep(Kept(arguments.keep, short.seed, invariant, short.script))
    return 1 if broken else 0


def _by_invariant(found: Iterable[Failure], wanted: list[Invariant]) -> dict[Invariant, list[Failure]]:
    broken: dict[Invariant, list[Failure]] = defaultdict(list)
    for failure in found:
        for invariant in wanted:
            if failure.breaks(invariant):
                broken[invariant].append(failure)
    return broken


if __name__ == "__main__":
    sys.exit(main())
