"""Functions that a model defines itself: off by default, and never deep, circular or explosive.

A chain of 3,000 functions in 148 KB overflows ONNX Runtime's stack; thirty that call the next one twice
become 2³⁰ nodes when they are expanded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from ferryline.model_runtime.gate.inventory import graphs_in
from ferryline.model_runtime.gate.limits import GateLimits
from ferryline.registry.errors import RefusedError

GATE = "functions"
NODES_GATE = "nodes"
_REMEDY = "Expand the functions before the export (onnx.inliner), or make them flat"

FunctionKey = tuple[str, str, str]


def key_of_call(node: NodeProto) -> FunctionKey:
    """What a node calls, if it calls a function: domain, name, overload."""
    return node.domain, node.op_type, node.overload


def function_keys(model: ModelProto) -> frozenset[FunctionKey]:
    """The functions that the model defines."""
    return frozenset(_key(function) for function in model.functions)


def check_functions(model: ModelProto, limits: GateLimits) -> None:
    """The model has no functions, unless allowed; then they are shallow and stay few when expanded.

    Raises:
        RefusedError: it has some and may not, they call themselves or too deep (gate `functions`), or there
            would be too many nodes (gate `nodes`).
    """
    if not model.functions:
        return
    if not limits.allow_functions:
        raise RefusedError(
            GATE,
            f"the model defines {len(model.functions)} functions of its own",
            "Expand them before the export (onnx.inliner), or set FERRY_GATE_ALLOW_FUNCTIONS=true",
        )
    calls = _calls(model)
    depths, sizes = dict[FunctionKey, int](), dict[FunctionKey, int]()
    for key in _callees_first(calls):
        own = {callee: count for callee, count in calls[key].items() if callee in calls}
        depths[key] = 1 + max((depths[callee] for callee in own), default=0)
        sizes[key] = sum(sizes.get(callee, 1) * count for callee, count in calls[key].items())
        _require_modest(key, depths[key], sizes[key], limits)
    expanded = sum(sizes.get(callee, 1) * count for callee, count in _counted(model.graph).items())
    _require_modest(("", "the graph", ""), 0, expanded, limits)


def _calls(model: ModelProto) -> dict[FunctionKey, Counter[FunctionKey]]:
    calls: dict[FunctionKey, Counter[FunctionKey]] = {}
    for function in model.functions:
        if _key(function) in calls:
            raise RefusedError(GATE, f"function {function.name!r} is defined twice", _REMEDY)
        calls[_key(function)] = _counted(function)
    return calls


def _callees_first(calls: dict[FunctionKey, Counter[FunctionKey]]) -> Iterable[FunctionKey]:
    graph = {key: [callee for callee in called if callee in calls] for key, called in calls.items()}
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise RefusedError(GATE, "its functions call each other in a circle", _REMEDY) from error


def _require_modest(key: FunctionKey, depth: int, size: int, limits: GateLimits) -> None:
    if depth > limits.max_depth:
        raise RefusedError(
            GATE,
            f"its functions call each other more than {limits.max_depth} deep",
            f"{_REMEDY}; FERRY_GATE_MAX_DEPTH raises the limit",
        )
    if size > limits.max_nodes:
        raise RefusedError(
            NODES_GATE,
            f"{key[1]!r} has more than {limits.max_nodes} nodes once its functions are expanded",
            "Make the model smaller, or raise FERRY_GATE_MAX_NODES",
        )


def _counted(body: GraphProto | FunctionProto) -> Counter[FunctionKey]:
    """How often what is called, in the graphs inside as well."""
    counts: Counter[FunctionKey] = Counter()
    pending: list[GraphProto | FunctionProto] = [body]
    while pending:
        for node in pending.pop().node:
            counts[key_of_call(node)] += 1
            for attribute in node.attribute:
                pending.extend(graphs_in(attribute))
    return counts


def _key(function: FunctionProto) -> FunctionKey:
    return function.domain, function.name, function.overload
