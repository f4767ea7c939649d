"""What the models said about one batch, as metrics need it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

from ferryline.registry.documents import Label

SAMPLE = 200
"""How many answers of a batch a distribution takes: all of them would cost a tenth of the rate."""


@dataclass(slots=True)
class BatchTally:
    """Counts of one batch.

    Attributes:
        labelled: records that came with a label.
        right: those of them whose prediction was right.
        inference_seconds: time spent in the models.
        sample: answers, all of them in a batch of up to `SAMPLE`.
    """

    labelled: int = 0
    right: int = 0
    inference_seconds: float = 0.0
    sample: list[Label] = field(default_factory=list)

    def add(self, answers: Sequence[Label], actuals: Sequence[Label | None], seconds: float) -> None:
        """Count what a model said about n records.

        Args:
            answers: n classes.
            actuals: n labels; None where a record has none.
            seconds: how long it took.
        """
        self.labelled += len(actuals) - actuals.count(None)
        self.right += sum(map(operator.eq, answers, actuals))
        self.inference_seconds += seconds
        room = SAMPLE - len(self.sample)
        if room > 0:
            step = max(1, -(-len(answers) // room))
            self.sample.extend(answers[::step])
