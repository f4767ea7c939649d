"""[learner], [evaluation], [export] and [promotion]: how a model learns, and when it may serve."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from ferryline.streams.pipeline.section import Section

DEFAULT_OPSET = 18
"""The newest opset that skl2onnx 1.19 and ONNX Runtime 1.22, the oldest allowed, both know."""
NEWEST_OPSET = 22
"""The newest opset that skl2onnx 1.20 converts to; ONNX Runtime 1.22 knows it."""


class Learning(Section):
    """Arguments of scikit-learn's `SGDClassifier`; the loss is always `log_loss`."""

    alpha: float = Field(default=1e-4, gt=0)
    penalty: Literal["l2", "l1", "elasticnet"] = "l2"
    l1_ratio: float = Field(default=0.15, ge=0, le=1)
    learning_rate: Literal["optimal", "constant", "invscaling"] = "optimal"
    eta0: float = Field(default=0.01, gt=0)
    power_t: float = 0.5
    seed: int = Field(default=0, ge=0, le=2**32 - 1)


class LearnerSpec(Section):
    """How the model learns."""

    batch_records: int = Field(default=100, ge=1, le=100_000)
    learning: Learning = Learning()


class EvaluationSpec(Section):
    """How the model is judged: over the last `window` records, each predicted before it is learnt."""

    window: int = Field(default=1000, ge=10, le=1_000_000)


class ExportSpec(Section):
    """When a version is exported, and how exactly the file must agree with the estimator.

    A version is due after `every_records` or `every_seconds` with a new record, whichever is first, yet
    never sooner than `min_seconds` after the one before: a backlog must not flood the registry.
    """

    every_records: int = Field(default=1000, ge=1)
    every_seconds: float = Field(default=5.0, gt=0)
    min_seconds: float = Field(default=1.0, ge=0)
    opset: int = Field(default=DEFAULT_OPSET, ge=13, le=NEWEST_OPSET)
    parity_rows: int = Field(default=200, ge=1, le=100_000)
    parity_tolerance: float = Field(default=1e-4, gt=0)


class PromotionMode(StrEnum):
    """Who decides whether a new version serves."""

    ALWAYS = "always"
    NO_WORSE = "no_worse"
    MANUAL = "manual"


class PromotionSpec(Section):
    """When a published version is promoted by the trainer itself.

    Attributes:
        mode: who decides.
        min_records: a version that learnt from fewer never serves; not for `manual`.
        min_accuracy: nor does one whose prequential accuracy is below; not for `manual`.
        max_drop: of `no_worse`, how far the accuracy may lie below that of the version that serves.
        best_of: of `no_worse`, among how many versions that served last the best is looked for, back to the
            last promotion or rollback by a person; 1 compares with what serves alone.
        max_drop_from_best: of `no_worse`, how far the accuracy may lie below that best; None for twice
            `max_drop`.
    """

    mode: PromotionMode = PromotionMode.ALWAYS
    min_records: int = Field(default=500, ge=0)
    min_accuracy: float = Field(default=0.0, ge=0, le=1)
    max_drop: float = Field(default=0.02, ge=0, le=1)
    best_of: int = Field(default=20, ge=1, le=100)
    max_drop_from_best: float | None = Field(default=None, ge=0, le=1)

    @property
    def drop_from_best(self) -> float:
        """How far the accuracy may lie below the best that served lately."""
        return 2 * self.max_drop if self.max_drop_from_best is None else self.max_drop_from_best
