"""Plays histories by hand.

python -m tests.simulation.training 4711            the history of a seed, and what the trainer said
python -m tests.simulation.training 4711 --shrink   a short one that fails likewise
python -m tests.simulation.training script.txt      a script
python -m tests.simulation.training 0 1000          the seeds of a range: what they find, and how often
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from pathlib import Path

from tests.simulation.training.play import play
from tests.simulation.training.script import History
from tests.simulation.training.shrinking import shrink


def main() -> int:
    """Play what the command line names; returns 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", help="a seed, or a file with a script")
    parser.add_argument("end", nargs="?", type=int, help="the seed after the last one")
    parser.add_argument("--real", action="store_true", help="with scikit-learn and skl2onnx")
    parser.add_argument("--shrink", action="store_true", help="look for a short history that fails likewise")
    arguments = parser.parse_args()
    if arguments.end is not None:
        return _survey(int(arguments.what), arguments.end, real=arguments.real)
    if arguments.what.isdigit():
        history = History.of_seed(int(arguments.what), real=arguments.real)
    else:
        history = History.parse(Path(arguments.what).read_text())
    played = play(history)
    if arguments.shrink and played.findings:
        history = shrink(played).history
    played = play(history, watch=lambda line: print(f"    {line}"))  # noqa: T201 - a tool for a terminal
    print(played)  # noqa: T201
    return 1 if played.findings else 0


def _survey(begin: int, end: int, *, real: bool) -> int:
    found: dict[str, list[int]] = defaultdict(list)
    failed = 0
    for seed in range(begin, end):
        findings = play(History.of_seed(seed, real=real)).findings
        failed += bool(findings)
        for finding in findings:
            found[
                re.sub(r"[0-9.]+", "N", re.sub(r"(, )?#[0-9]+ \(\w+\) at [0-9:]+", "", finding))[:120]
            ].append(seed)
    print(f"{failed} of {end - begin} histories fail")  # noqa: T201
    for kind, seeds in sorted(found.items(), key=lambda item: -len(item[1])):
        print(f"{len(seeds):6} {kind}   seeds {', '.join(map(str, list(dict.fromkeys(seeds))[:5]))}")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
