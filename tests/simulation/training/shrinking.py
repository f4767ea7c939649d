"""From a history that fails to a short one that fails likewise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.simulation.training.play import Played, play
from tests.simulation.training.script import Act, History, Step

_FEWER = {Act.APPEND: 2, Act.COMMITTED: 1, Act.ABORTED: 1, Act.OPENED: 1}
"""Which word of a step is a count that may be smaller."""


def shrink(played: Played, attempts: int = 300, same: Callable[[str], bool] | None = None) -> Played:
    """Leave out steps, and make counts smaller, while it fails likewise.

    Args:
        played: a history that failed.
        attempts: how many others are played at most.
        same: whether a finding is the one that must remain; by default one of the first one's kind.
    """
    kind = _kind(played.findings[0])
    likewise = same or (lambda finding: _kind(finding) == kind)
    best, changed = played, True
    while changed and attempts > 0:
        changed = False
        for candidate in _smaller(best.history):
            attempts -= 1
            tried = play(candidate)
            if any(map(likewise, tried.findings)):
                best, changed = tried, True
                break
            if attempts <= 0:
                break
    return best


def _smaller(history: History) -> list[History]:
    steps = history.steps
    without = [steps[:index] + steps[index + 1 :] for index in range(len(steps))]
    fewer = [
        [*steps[:index], less, *steps[index + 1 :]]
        for index, step in enumerate(steps)
        if (less := _less(step)) is not None
    ]
    return [replace(history, steps=changed) for changed in without + fewer]


def _less(step: Step) -> Step | None:
    word = _FEWER.get(step.act)
    if word is None or step.number(word) <= 1:
        return None
    words = list(step.words)
    words[word] = str(step.number(word) // 2)
    return Step(step.act, tuple(words))


def _kind(finding: str) -> str:
    return finding.partition(":")[0]
