"""The estimator as an ONNX file whose names, roles and classes are fixed and written in it."""

from __future__ import annotations

from typing import Literal

import onnx
import orjson
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType
from sklearn.base import ClassifierMixin

from ferryline.model_runtime.facts import CLASSES_PROPERTY, ROLE_PROPERTY
from ferryline.registry.documents import Label, Role
from ferryline.registry.error_kinds import is_exhaustion
from ferryline.registry.errors import RefusedError

Precision = Literal["float32", "float64"]

GRAPH = "ferryline"  # without a name skl2onnx makes a random one, and equal models differ in digest
INPUT = "input"
LABEL = "label"
PROBABILITIES = "probabilities"
ROLES = {LABEL: Role.LABEL, PROBABILITIES: Role.PROBABILITY}

_ML_OPSET = 3
_TYPES = {"float32": FloatTensorType, "float64": DoubleTensorType}


def export_onnx(
    estimator: ClassifierMixin, *, width: int, classes: tuple[Label, ...], opset: int, precision: Precision
) -> bytes:
    """Convert a fitted estimator.

    Args:
        estimator: scaler and classifier, or their folded form.
        width: features per row.
        classes: the labels as the pipeline names them, in the order of the scores.
        opset: newest ONNX opset the file may need.
        precision: type of the input and of the probabilities.

    Raises:
        RefusedError: it cannot be converted, or the names came out otherwise (gate `export`).
    """
    try:
        model = convert_sklearn(
            estimator,
            GRAPH,
            initial_types=[(INPUT, _TYPES[precision]([None, width]))],
            # ZipMap gives a sequence of maps, and with float64 an invalid graph (sklearn-onnx#958)
            options={"zipmap": False},
            target_opset={"": opset, "ai.onnx.ml": _ML_OPSET},
        )
    except (RuntimeError, ValueError, NotImplementedError) as error:
        if is_exhaustion(str(error)):  # says nothing about the estimator
            raise
        raise RefusedError(
            "export", f"skl2onnx cannot convert it: {error}", "Check [export] opset in the pipeline file"
        ) from error
    _require_names(model)
    properties = {ROLE_PROPERTY + name: str(role) for name, role in ROLES.items()}
    properties[CLASSES_PROPERTY] = orjson.dumps(classes).decode()
    onnx.helper.set_model_props(model, properties)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _require_names(model: onnx.ModelProto) -> None:
    # skl2onnx renames silently where names collide (sklearn-onnx#1235)
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    if (inputs, outputs) != ([INPUT], [LABEL, PROBABILITIES]):
        raise RefusedError(
            "export",
            f"the file has inputs {inputs} and outputs {outputs}",
            f"Expected {[INPUT]} and {[LABEL, PROBABILITIES]}: use the pinned skl2onnx",
        )
