"""All that can be judged of a model by reading it, in the order of the gates; pure."""

from __future__ import annotations

from collections.abc import Callable

from onnx import ModelProto

from ferryline.model_runtime.gate.external_data import check_external_data
from ferryline.model_runtime.gate.functions import check_functions
from ferryline.model_runtime.gate.limits import GateLimits
from ferryline.model_runtime.gate.operators import check_control_flow, check_operators
from ferryline.model_runtime.gate.shapes import check_shapes, check_sparse
from ferryline.model_runtime.gate.sizes import check_nodes

STATIC_CHECKS: tuple[Callable[[ModelProto, GateLimits], None], ...] = (
    check_nodes,
    check_external_data,
    check_operators,
    check_functions,
    check_control_flow,
    check_sparse,
    check_shapes,
)


def static_checks(model: ModelProto, limits: GateLimits) -> None:
    """Judge a parsed model by what is written in it.

    Raises:
        RefusedError: a gate refuses it.
    """
    for check in STATIC_CHECKS:
        check(model, limits)
