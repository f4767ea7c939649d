"""Golden rows: inputs a version was published with, and the outputs it must still give where it is loaded."""

from __future__ import annotations

from typing import Any

import numpy as np

from ferryline.model_runtime.session import Array, OnnxSession, require_resources
from ferryline.registry.documents import GoldenRows, ModelFacts, TensorSpec
from ferryline.registry.errors import RefusedError

GATE = "golden-rows"
_REMEDY = "Publish the model again from where it was made, with golden rows of the same file"


def to_array(values: list[Any], spec: TensorSpec) -> Array:
    """Nested lists as an array of the tensor's dtype.

    Raises:
        RefusedError: they are not of that dtype or not rectangular.
    """
    try:
        return np.asarray(values, dtype=object if spec.dtype == "string" else spec.dtype)
    except (OverflowError, TypeError, ValueError) as error:
        raise RefusedError(
            GATE, f"the rows of {spec.name!r} are no {spec.dtype} tensor: {error}", _REMEDY
        ) from error


def check_golden_rows(session: OnnxSession, facts: ModelFacts, golden: GoldenRows) -> None:
    """Run the rows and compare; this also warms the session up.

    Raises:
        RefusedError: the session gives other outputs, or cannot run the rows.
        ExhaustedError: it could not run them for want of memory; the next try may succeed.
    """
    specs = {spec.name: spec for spec in (*facts.inputs, *facts.outputs)}
    unknown = (set(golden.inputs) | set(golden.outputs)) - set(specs)
    if unknown:
        raise RefusedError(GATE, f"the rows name {min(unknown)!r}, which the model does not have", _REMEDY)
    feeds = {name: to_array(values, specs[name]) for name, values in golden.inputs.items()}
    try:
        outputs = session.run(feeds, list(golden.outputs))
    except ValueError as error:
        require_resources(error)
        raise RefusedError(GATE, str(error), _REMEDY) from error
    for name, values in golden.outputs.items():
        _require_equal(name, outputs[name], to_array(values, specs[name]), golden.absolute_tolerance)


def warm_up(session: OnnxSession, facts: ModelFacts) -> str | None:
    """Run a model that came without golden rows once, on zeros.

    The first run of a session costs up to 45 times a later one. What it gives does not matter, nor that some
    models refuse zeros: nothing was promised of them.

    Returns:
        Why the model could not be run, None if it could.

    Raises:
        ExhaustedError: it could not be run for want of memory; the next try may succeed.
    """
    try:
        session.run(zeros(facts))
    except ValueError as error:
        require_resources(error)
        return str(error)
    return None


def zeros(facts: ModelFacts) -> dict[str, Array]:
    """One row of zeros, or empty texts, for each input; every free dimension is 1."""
    feeds = {
        spec.name: np.zeros(
            [max(size, 1) for size in spec.shape], dtype=object if spec.dtype == "string" else spec.dtype
        )
        for spec in facts.inputs
    }
    for spec in facts.inputs:
        if spec.dtype == "string":
            feeds[spec.name].fill("")
    return feeds


def _require_equal(name: str, actual: Array, expected: Array, tolerance: float) -> None:
    if actual.shape != expected.shape:
        raise RefusedError(GATE, f"{name!r} has shape {actual.shape}, expected {expected.shape}", _REMEDY)
    if expected.dtype.kind != "f":
        if not np.array_equal(actual, expected):
            rows = int(np.sum(actual != expected))
            raise RefusedError(GATE, f"{name!r} differs from what was published in {rows} places", _REMEDY)
    elif not np.allclose(actual, expected, rtol=0, atol=tolerance):
        worst = float(np.max(np.abs(actual - expected)))
        raise RefusedError(GATE, f"{name!r} is off by {worst:.3g}, more than {tolerance:.3g}", _REMEDY)
