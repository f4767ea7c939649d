"""The gate between an exported file and everyone else: it must say what the estimator says."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from sklearn.pipeline import Pipeline as SklearnPipeline

from ferryline.model_runtime.session import Array, OnnxSession, require_resources
from ferryline.registry.documents import GoldenRows, ParityReport
from ferryline.registry.errors import RefusedError
from ferryline.trainer.export import INPUT, LABEL, PROBABILITIES, Precision
from ferryline.trainer.ring import Rows

GATE = "parity"
GOLDEN_ROWS = 16
_REMEDY = "Nothing was published and training goes on; see [export] parity_tolerance in the pipeline file"


def load_session(data: bytes) -> OnnxSession:
    """A session of the file's bytes, loaded as consumers load it: from a path.

    Raises:
        RefusedError: ONNX Runtime cannot load them (gate `load`).
    """
    with tempfile.TemporaryDirectory(prefix="ferry-parity-") as folder:
        path = Path(folder) / "candidate.onnx"
        path.write_bytes(data)
        return OnnxSession(path)


def check_parity(
    session: OnnxSession,
    estimator: SklearnPipeline,
    rows: Rows,
    *,
    precision: Precision,
    tolerance: float,
) -> ParityReport:
    """Compare file and estimator over `rows`, [n, features], n ≥ 1.

    Raises:
        RefusedError: a label differs that is no tie, a probability is off by more than `tolerance`, or one is
            no number.
        ExhaustedError: the file could not be run for want of memory; the next try may succeed.
    """
    outputs = _run(session, rows, precision)
    # predict_proba alone decides both, as the file's one graph does
    expected = estimator.predict_proba(rows)
    actual = outputs[PROBABILITIES]
    if actual.shape != expected.shape:
        raise RefusedError(GATE, f"probabilities have shape {actual.shape}, not {expected.shape}", _REMEDY)
    if not np.isfinite(actual).all():
        count = int((~np.isfinite(actual)).sum())
        raise RefusedError(GATE, f"{count} probabilities of {actual.size} are no finite numbers", _REMEDY)
    report = ParityReport(
        rows=len(rows),
        label_mismatches=_mismatches(outputs[LABEL], estimator.classes_, expected, tolerance),
        max_score_difference=float(np.abs(actual - expected).max()),
        tolerance=tolerance,
        dtype=precision,
    )
    _require(report)
    return report


def golden_rows(session: OnnxSession, rows: Rows, *, precision: Precision, tolerance: float) -> GoldenRows:
    """The newest rows with what the file itself says of them, for consumers to check where they load it.

    Rows between two classes are left out: rounding on another processor may choose the other label. So are
    rows with a number that `precision` cannot hold: a manifest has no infinity.

    Raises:
        RefusedError: no row is left.
    """
    rows = rows[np.isfinite(_cast(rows, precision)).all(axis=1)]
    if not len(rows):
        raise RefusedError(
            GATE,
            f"every recent row has a number that is infinite in {precision}, so consumers would have nothing "
            "to check the file by",
            "Nothing was published and training goes on; give [source.features] a minimum and a maximum, or "
            "scale the numbers before they are sent",
        )
    best = np.sort(_run(session, rows, precision)[PROBABILITIES], axis=1)[:, -2:]
    clear = rows[best[:, 1] - best[:, 0] > tolerance]
    inputs = _cast((clear if len(clear) else rows)[-GOLDEN_ROWS:], precision)
    outputs = _run(session, inputs, precision)
    if not len(clear):
        del outputs[LABEL]
    return GoldenRows(
        inputs={INPUT: inputs.tolist()},
        outputs={name: values.tolist() for name, values in outputs.items()},
        absolute_tolerance=tolerance,
    )


def _mismatches(labels: Array, classes: Array, expected: Rows, tolerance: float) -> int:
    """How many labels are not the estimator's; one between two classes, by `tolerance`, may be either."""
    chances = np.where(labels[:, np.newaxis] == classes[np.newaxis, :], expected, -np.inf).max(axis=1)
    return int((expected.max(axis=1) - chances > tolerance).sum())


def _run(session: OnnxSession, rows: Array, precision: Precision) -> dict[str, Array]:
    try:
        return session.run({INPUT: _cast(rows, precision)}, [LABEL, PROBABILITIES])
    except ValueError as error:
        require_resources(error)  # else want of memory would choose another precision, for good
        raise RefusedError(GATE, str(error), _REMEDY) from error


def _cast(rows: Array, precision: Precision) -> Array:
    # what float32 cannot hold becomes infinite, and is found where it matters
    with np.errstate(over="ignore"):
        cast: Array = rows.astype(precision)
    return cast


def _require(report: ParityReport) -> None:
    if report.label_mismatches:
        raise RefusedError(
            GATE,
            f"{report.label_mismatches} of {report.rows} labels are not the estimator's in {report.dtype}",
            _REMEDY,
        )
    if report.max_score_difference > report.tolerance:
        raise RefusedError(
            GATE,
            f"a probability is off by {report.max_score_difference:.3g} in {report.dtype}, "
            f"{report.tolerance:.3g} is allowed",
            _REMEDY,
        )
