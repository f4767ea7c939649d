"""Which operators a model may use: those of the allowed domains, and by default none that holds a graph."""

from __future__ import annotations

from onnx import ModelProto, NodeProto, defs

from ferryline.model_runtime.gate.functions import function_keys, key_of_call
from ferryline.model_runtime.gate.inventory import Scope, attributes, graphs_in, nodes
from ferryline.model_runtime.gate.limits import STANDARD_DOMAINS, GateLimits
from ferryline.registry.errors import RefusedError

GATE = "operators"
CONTROL_FLOW_GATE = "control-flow"
CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})

_CONTROL_FLOW_REMEDY = (
    "Export a model without branches and loops, or set FERRY_GATE_ALLOW_CONTROL_FLOW=true "
    "where its makers are trusted"
)


def check_operators(model: ModelProto, limits: GateLimits) -> None:
    """Every operator is of an allowed domain and known there, or a function of the model.

    Raises:
        RefusedError: one is not, or a domain is imported in two versions.
    """
    _require_one_opset_each(model)
    own, known = function_keys(model), set[tuple[str, str]]()
    for scope, node in nodes(model):
        operator = (node.domain, node.op_type)
        if not all(isinstance(text, str) for text in operator):  # protobuf gives bytes where it is not UTF-8
            raise RefusedError(
                "parse", "the ONNX file is damaged: an operator's name is no text", "Export the model again"
            )
        if operator in known or key_of_call(node) in own:
            continue
        _require_known(node, scope, limits)
        known.add(operator)


def check_control_flow(model: ModelProto, limits: GateLimits) -> None:
    """No operator holds a graph, unless that is allowed.

    Raises:
        RefusedError: one does.
    """
    if limits.allow_control_flow:
        return
    for scope, node in nodes(model):
        if node.op_type in CONTROL_FLOW and node.domain in STANDARD_DOMAINS:
            raise RefusedError(
                CONTROL_FLOW_GATE, f"{_named(node)} in {scope.name} is control flow", _CONTROL_FLOW_REMEDY
            )
    for scope, attribute in attributes(model):
        if next(graphs_in(attribute), None) is not None:
            raise RefusedError(
                CONTROL_FLOW_GATE,
                f"attribute {attribute.name!r} in {scope.name} holds a graph",
                _CONTROL_FLOW_REMEDY,
            )


def _require_one_opset_each(model: ModelProto) -> None:
    versions: dict[str, int] = {}
    for item in model.opset_import:
        domain = _canonical(item.domain)
        # skl2onnx writes the same import twice now and then
        if versions.setdefault(domain, item.version) != item.version:
            raise RefusedError(
                GATE,
                f"the file imports the operators of {domain or 'ai.onnx'} in two versions",
                "Export the model again with one opset",
            )


def _require_known(node: NodeProto, scope: Scope, limits: GateLimits) -> None:
    if node.domain not in limits.domains:
        raise RefusedError(
            GATE,
            f"{_named(node)} in {scope.name} is of domain {node.domain!r}",
            f"Allowed are {', '.join(limits.domains[1:])}; others with FERRY_GATE_EXTRA_DOMAINS",
        )
    if node.domain in STANDARD_DOMAINS and not defs.has(node.op_type, _canonical(node.domain)):
        raise RefusedError(
            GATE,
            f"{_named(node)} in {scope.name} is no operator of {node.domain or 'ai.onnx'}",
            "Export the model with standard operators only",
        )


def _canonical(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _named(node: NodeProto) -> str:
    return f"{node.op_type} {node.name!r}" if node.name else node.op_type
