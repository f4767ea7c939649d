"""How big a model may be in nodes and other parts, and in graphs inside graphs.

Comes before the other checks, though a walk over everything costs them seconds: it bounds that walk.
"""

from __future__ import annotations

from onnx import FunctionProto, ModelProto

from ferryline.model_runtime.gate.inventory import Scope, scopes
from ferryline.model_runtime.gate.limits import GateLimits
from ferryline.registry.errors import RefusedError

GATE = "nodes"
PARTS_PER_NODE = 10


def check_nodes(model: ModelProto, limits: GateLimits) -> None:
    """Neither too many nodes or other parts, nor graphs nested too deep.

    Raises:
        RefusedError: there are.
    """
    node_count = 0
    part_count = len(model.functions) + len(model.opset_import) + len(model.metadata_props)
    part_count += len(model.training_info)
    _require_few(part_count, PARTS_PER_NODE * limits.max_nodes, "parts")
    for scope in scopes(model):
        node_count += len(scope.body.node)
        _require_few(node_count, limits.max_nodes, "nodes")
        part_count += _parts(scope)
        _require_few(part_count, PARTS_PER_NODE * limits.max_nodes, "parts")
        if scope.depth > limits.max_depth:
            raise RefusedError(
                GATE,
                f"its graphs lie more than {limits.max_depth} deep in each other",
                "Make it flatter, or raise FERRY_GATE_MAX_DEPTH",
            )


def _parts(scope: Scope) -> int:
    """Everything in a scope that some check looks at one by one, graphs inside excepted."""
    body = scope.body
    count = len(body.value_info) + sum(len(node.attribute) for node in body.node)
    if isinstance(body, FunctionProto):
        return count + len(body.attribute_proto)
    return count + len(body.initializer) + len(body.sparse_initializer) + len(body.input) + len(body.output)


def _require_few(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise RefusedError(
            GATE,
            f"the model has more than {limit} {what}",
            "Make it smaller, or raise FERRY_GATE_MAX_NODES",
        )
