"""Tensors that a model makes out of constants: a hundred bytes that become gigabytes when it is loaded.

Only what constants reveal directly is counted. What arithmetic hides is found by shape inference, and what
that cannot see, by the limit on memory that the model is loaded under.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from ferryline.model_runtime.gate.inventory import nodes, scopes
from ferryline.model_runtime.gate.limits import STANDARD_DOMAINS
from ferryline.model_runtime.gate.tensor_sizes import bits_of, stored_elements

_LONGEST_SHAPE = 64  # elements of a constant that can be a shape, repeats or pads
_ELEMENT_BYTES = 4  # where the type is not known: most are float32

Numbers = list[float]


@dataclass(frozen=True, slots=True)
class _Constants:
    """The small numeric constants of a model by name; a name may be taken once in each graph."""

    by_name: dict[str, list[TensorProto]]

    def numbers(self, node: NodeProto, index: int) -> Iterator[Numbers]:
        """What input `index` of `node` may be, if it is a constant."""
        if index < len(node.input):
            for tensor in self.by_name.get(node.input[index], ()):
                yield _numbers(tensor)

    def elements(self, node: NodeProto, index: int) -> int:
        """How many elements input `index` has, 1 where that is not known."""
        if index >= len(node.input):
            return 1
        known = self.by_name.get(node.input[index], ())
        return max((math.prod(tensor.dims) for tensor in known), default=1)


def generated_bytes(model: ModelProto) -> Iterator[float]:
    """Bytes of each tensor that a node makes out of constants."""
    constants = _constants(model)
    for _, node in nodes(model):
        estimate = _ESTIMATES.get(node.op_type)
        if estimate is not None and node.domain in STANDARD_DOMAINS:
            yield max(estimate(node, constants), 0.0)


def _constants(model: ModelProto) -> _Constants:
    by_name = defaultdict[str, list[TensorProto]](list)
    for scope in scopes(model):
        if scope.graph is not None:
            for tensor in scope.graph.initializer:
                by_name[tensor.name].append(tensor)
        for node in scope.body.node:
            if node.op_type == "Constant" and node.output:
                by_name[node.output[0]].extend(_constant_values(node))
    return _Constants(dict(by_name))


def _constant_values(node: NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        match attribute.name:
            case "value":
                yield attribute.t
            case "value_int" | "value_float":
                number = attribute.i if attribute.name == "value_int" else attribute.f
                yield numpy_helper.from_array(np.array(number))
            case "value_ints" | "value_floats":
                numbers = attribute.ints if attribute.name == "value_ints" else attribute.floats
                yield numpy_helper.from_array(np.array(numbers))


def _numbers(tensor: TensorProto) -> Numbers:
    if stored_elements(tensor) > _LONGEST_SHAPE or tensor.data_type == TensorProto.STRING:
        return []
    try:
        return [float(number) for number in numpy_helper.to_array(tensor).ravel()]
    except (KeyError, TypeError, ValueError):  # damaged; the check of stored tensors or the checker says so
        return []


def _product(numbers: Numbers) -> float:
    return math.prod(max(number, 1.0) for number in numbers) if numbers else 0.0


def _largest(node: NodeProto, constants: _Constants, index: int) -> float:
    return max(map(_product, constants.numbers(node, index)), default=0.0)


def _constant_of_shape(node: NodeProto, constants: _Constants) -> float:
    bits = next((bits_of(item.t.data_type) for item in node.attribute if item.name == "value"), 32)
    return _largest(node, constants, 0) * bits / 8


def _of_shape_input(index: int) -> Callable[[NodeProto, _Constants], float]:
    """The estimate for operators whose output has the shape that input `index` says."""
    return lambda node, constants: _largest(node, constants, index) * _ELEMENT_BYTES


def _repeated(index: int) -> Callable[[NodeProto, _Constants], float]:
    """The estimate for operators that make input 0 as many times bigger as input `index` says."""
    return lambda node, constants: (
        _largest(node, constants, index) * constants.elements(node, 0) * _ELEMENT_BYTES
    )


def _of_shape_attribute(node: NodeProto, _: _Constants) -> float:
    for attribute in node.attribute:
        if attribute.name == "shape":
            return _product([float(dim) for dim in attribute.ints]) * 8
    return 0.0


def _resized(node: NodeProto, constants: _Constants) -> float:
    by_size, by_scale = _largest(node, constants, 3), _largest(node, constants, 2)
    return max(by_size, by_scale * constants.elements(node, 0)) * _ELEMENT_BYTES


def _padded(node: NodeProto, constants: _Constants) -> float:
    largest = 0.0
    for pads in constants.numbers(node, 1):
        half = len(pads) // 2
        sides = [1 + before + after for before, after in zip(pads[:half], pads[half:], strict=False)]
        largest = max(largest, _product(sides))
    return largest * _ELEMENT_BYTES


def _range(node: NodeProto, constants: _Constants) -> float:
    steps = [next(iter(constants.numbers(node, index)), []) for index in range(3)]
    if any(len(numbers) != 1 for numbers in steps):
        return 0.0
    start, limit, delta = (numbers[0] for numbers in steps)
    return (limit - start) / delta * 8 if delta else 0.0


_ESTIMATES: dict[str, Callable[[NodeProto, _Constants], float]] = {
    "AffineGrid": _of_shape_input(1),
    "BlackmanWindow": _of_shape_input(0),
    "CenterCropPad": _of_shape_input(1),
    "ConstantOfShape": _constant_of_shape,
    "Expand": _of_shape_input(1),
    "HammingWindow": _of_shape_input(0),
    "HannWindow": _of_shape_input(0),
    "OneHot": _repeated(1),
    "Pad": _padded,
    "RandomNormal": _of_shape_attribute,
    "RandomUniform": _of_shape_attribute,
    "Range": _range,
    "Resize": _resized,
    "Tile": _repeated(1),
    "Upsample": _repeated(1),
}
