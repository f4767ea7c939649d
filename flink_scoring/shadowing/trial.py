"""A version that is tried in the shadow of the one that serves: on the same records, after it, at no risk.

The shadow never decides, never fails a record, and may take only so much time beside scoring.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import orjson

from ferryline.flink_scoring.binding import ModelBinding
from ferryline.flink_scoring.shadowing.budget import ShadowBudget
from ferryline.model_runtime.served import ServedModel
from ferryline.registry.documents import Label
from ferryline.streams.pipeline import Pipeline
from ferryline.streams.scored import ModelStamp, ShadowAnswer


@dataclass(slots=True)
class ShadowTally:
    """How many records the shadow was shown, what became of them, and how long it took."""

    compared: int = 0
    agreed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    by_version: dict[int, int] = field(default_factory=dict)


class Shadow:
    """Compares a version with what serves, batch by batch.

    Args:
        pipeline: whose records are scored.
        clock: seconds.
    """

    def __init__(self, pipeline: Pipeline, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._budget = ShadowBudget(pipeline.require_scoring().shadow_share)
        self._bound: tuple[str, ModelBinding, dict[tuple[Label, bool], orjson.Fragment]] | None = None

    def earn(self, seconds: float) -> None:
        """Scoring took so long; the shadow may take its share of that."""
        self._budget.earn(seconds)

    def compare(
        self, shadow: ServedModel, rows: npt.NDArray[np.float64], answers: Sequence[Label], tally: ShadowTally
    ) -> list[orjson.Fragment | None]:
        """What the shadow says about n rows that were just answered.

        Args:
            shadow: the version to try.
            rows: [n, features].
            answers: the n classes that the version that serves gave.
            tally: counts what becomes of the rows.

        Returns:
            n values of the scored record's field `shadow`; None where the shadow was not asked or failed.
        """
        shown = self._budget.rows(len(rows))
        tally.skipped += len(rows) - shown
        if not shown:
            return [None] * len(rows)
        began = self._clock()
        guesses = self._ask(shadow, rows[:shown])
        seconds = self._clock() - began
        self._budget.spend(shown, seconds)
        tally.seconds += seconds
        if guesses is None:
            tally.failed += shown
            return [None] * len(rows)
        return self._judged(shadow, guesses, answers, tally)

    def _ask(self, shadow: ServedModel, rows: npt.NDArray[np.float64]) -> list[Label] | None:
        try:
            return self._binding(shadow)[0].labels(shadow.session, rows)
        except Exception:  # noqa: BLE001 - whatever is wrong with a shadow, the records are scored without it
            return None

    def _judged(
        self, shadow: ServedModel, guesses: list[Label], answers: Sequence[Label], tally: ShadowTally
    ) -> list[orjson.Fragment | None]:
        _, fragments = self._binding(shadow)
        said: list[orjson.Fragment | None] = [None] * len(answers)
        for place, (guess, answer) in enumerate(zip(guesses, answers, strict=False)):
            agrees = guess == answer
            tally.agreed += agrees
            if (guess, agrees) not in fragments:
                fragments[guess, agrees] = _fragment(shadow, guess, agrees=agrees)
            said[place] = fragments[guess, agrees]
        tally.compared += len(guesses)
        tally.by_version[shadow.version] = tally.by_version.get(shadow.version, 0) + len(guesses)
        return said

    def _binding(self, shadow: ServedModel) -> tuple[ModelBinding, dict[tuple[Label, bool], orjson.Fragment]]:
        # by generation too: the stamp in the fragments names it
        key = f"{shadow.digest}/{shadow.generation}"
        if self._bound is None or self._bound[0] != key:
            self._bound = (key, ModelBinding(shadow.manifest, self._pipeline), {})
        return self._bound[1], self._bound[2]


def worth_comparing(served: ServedModel, shadow: ServedModel | None) -> ServedModel | None:
    """The shadow, unless there is none or it is the very model that serves."""
    return None if shadow is None or shadow.digest == served.digest else shadow


def _fragment(shadow: ServedModel, guess: Label, *, agrees: bool) -> orjson.Fragment:
    stamp = ModelStamp(shadow.name, shadow.version, shadow.generation, shadow.digest)
    return orjson.Fragment(orjson.dumps(ShadowAnswer(guess, agrees, stamp)))
