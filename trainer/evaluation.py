"""Prequential evaluation (Dawid 1984; Gama et al. 2013): each record is predicted before it is learnt."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from ferryline.trainer.ring import Ring, Rows

_TRUTH, _PREDICTED, _OF_TRUTH, _OF_POSITIVE = range(4)
_SMALLEST = 1e-15  # a probability of 0 would make the log loss infinite
_BINARY = 2


class PrequentialWindow:
    """How good the last `size` predictions were."""

    def __init__(self, size: int, classes: int) -> None:
        self.size = size
        self._classes = classes
        self._ring = Ring(size, 4)

    def __len__(self) -> int:
        """Predictions in the window."""
        return len(self._ring)

    @staticmethod
    def scored(positions: npt.NDArray[np.int64], probabilities: Rows) -> Rows:
        """Returns predictions as `add` takes them; changes nothing.

        Args:
            positions: n true classes.
            probabilities: [n, classes], made before these records were learnt.
        """
        row = np.arange(len(positions))
        return np.column_stack(
            [
                positions,
                probabilities.argmax(axis=1),
                probabilities[row, positions],
                probabilities[:, -1],
            ]
        )

    def add(self, scored: Rows) -> None:
        """Take predictions in, the newest last."""
        self._ring.extend(scored)

    @property
    def accuracy(self) -> float | None:
        """The share of right predictions; None before the first."""
        kept = self._ring.newest()
        return float((kept[:, _TRUTH] == kept[:, _PREDICTED]).mean()) if len(kept) else None

    def metrics(self) -> dict[str, float]:
        """`accuracy`, `log_loss`, and for two classes `roc_auc` while both occur in the window."""
        kept = self._ring.newest()
        if not len(kept):
            return {}
        found = {
            "accuracy": float((kept[:, _TRUTH] == kept[:, _PREDICTED]).mean()),
            "log_loss": float(-np.log(np.clip(kept[:, _OF_TRUTH], _SMALLEST, 1.0)).mean()),
        }
        if self._classes == _BINARY and len(np.unique(kept[:, _TRUTH])) == _BINARY:
            found["roc_auc"] = float(roc_auc_score(kept[:, _TRUTH], kept[:, _OF_POSITIVE]))
        return found

    def rows(self) -> Rows:
        """The window for the state file, oldest first."""
        return self._ring.newest()

    def restore(self, rows: Rows) -> None:
        """Continue from what `rows()` gave; a smaller window keeps the newest."""
        self._ring = Ring(self.size, 4)
        self._ring.extend(rows)
