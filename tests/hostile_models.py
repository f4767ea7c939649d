"""Models that mean harm, rebuilt from what is known or made up: how to make them, and which gate is for them.

`SERVED` stands for a model that may pass: it looks odd, and does nobody any harm.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import (
    FunctionProto,
    GraphProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    StringStringEntryProto,
    TensorProto,
    TrainingInfoProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from ferryline.model_runtime.gate.limits import MIB, STANDARD_DOMAINS, GateLimits
from tests.onnx_models import linear_classifier
from tests.support.waiting import DEADLINE

OPSET = 17
SERVED = "served"
GIGA = 2**30

# by the processor: what harms takes no longer to show itself, and the machine may have other work
STRICT = GateLimits(wall_seconds=DEADLINE, cpu_seconds=20.0)


@dataclass(frozen=True, slots=True)
class Hostile:
    """A model, and what may become of it: one of `gates`, under `limits`."""

    make: Callable[[], bytes]
    gates: frozenset[str]
    limits: GateLimits = field(default=STRICT)


# --- building blocks ------------------------------------------------------------------------------


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: object) -> NodeProto:
    return helper.make_node(operator, inputs, outputs, **attributes)


def ints(name: str, *numbers: int) -> TensorProto:
    return numpy_helper.from_array(np.array(numbers, np.int64), name)


def scalar(name: str, number: object, dtype: type[np.generic] = np.int64) -> TensorProto:
    return numpy_helper.from_array(np.array(number, dtype), name)


def value(name: str, shape: Sequence[int | None], kind: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[NodeProto],
    constants: Sequence[TensorProto] = (),
    *,
    inputs: Sequence[ValueInfoProto] = (),
    outputs: Sequence[ValueInfoProto] = (),
    functions: Sequence[FunctionProto] = (),
    domains: Sequence[str] = ("",),
) -> ModelProto:
    """A model from `x`, [rows, 1], to `y`, unless other inputs and outputs are named."""
    graph = helper.make_graph(
        nodes, "g", inputs or [value("x", [None, 1])], outputs or [value("y", [None, None])], list(constants)
    )
    opsets = [helper.make_opsetid(domain, OPSET if not domain else 1) for domain in domains]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=list(functions))


def harmless() -> ModelProto:
    return model([node("Add", ["x", "x"], ["y"])])


def made_of(*nodes: NodeProto, constants: Sequence[TensorProto] = ()) -> bytes:
    """A model whose `y` is `x` plus the mean of `big`, which `nodes` make out of constants."""
    tail = [node("ReduceMean", ["big"], ["mean"], keepdims=0), node("Add", ["x", "mean"], ["y"])]
    return model([*nodes, *tail], constants).SerializeToString()


def protobuf_field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


# --- of the field notes ---------------------------------------------------------------------------


def function_chain(length: int = 3000) -> bytes:
    functions = [
        helper.make_function(
            "chain",
            f"F{index}",
            ["a"],
            ["b"],
            [node("Identity", ["a"], ["b"])]
            if index == length - 1
            else [node(f"F{index + 1}", ["a"], ["b"], domain="chain")],
            [helper.make_opsetid("", OPSET), helper.make_opsetid("chain", 1)],
        )
        for index in range(length)
    ]
    call = node("F0", ["x"], ["y"], domain="chain")
    return model([call], functions=functions, domains=["", "chain"]).SerializeToString()


def function_tree(depth: int = 30) -> bytes:
    """Each function calls the next one twice: 2³⁰ nodes."""
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("tree", 1)]
    functions = []
    for index in range(depth):
        callee, domain = ("Identity", "") if index == depth - 1 else (f"F{index + 1}", "tree")
        body = [node(callee, ["a"], ["m"], domain=domain), node(callee, ["m"], ["b"], domain=domain)]
        functions.append(helper.make_function("tree", f"F{index}", ["a"], ["b"], body, opsets))
    call = node("F0", ["x"], ["y"], domain="tree")
    return model([call], functions=functions, domains=["", "tree"]).SerializeToString()


def function_circle() -> bytes:
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ring", 1)]
    functions = [
        helper.make_function("ring", name, ["a"], ["b"], [node(other, ["a"], ["b"], domain="ring")], opsets)
        for name, other in (("F", "G"), ("G", "F"))
    ]
    call = node("F", ["x"], ["y"], domain="ring")
    return model([call], functions=functions, domains=["", "ring"]).SerializeToString()


def sparse_initializer(elements: int = GIGA // 4) -> bytes:
    made = model([node("ReduceMean", ["big"], ["mean"], keepdims=0), node("Add", ["x", "mean"], ["y"])])
    made.graph.sparse_initializer.append(_sparse("big", elements))
    return made.SerializeToString()


def _sparse(name: str, elements: int) -> SparseTensorProto:
    return helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(1, np.float32), name),
        numpy_helper.from_array(np.zeros(1, np.int64), f"{name}_indices"),
        [elements],
    )


def sparse_constant() -> bytes:
    made = model([NodeProto(op_type="Constant", output=["big"])])
    attribute = made.graph.node[0].attribute.add(name="sparse_value", type=11)
    attribute.sparse_tensor.CopyFrom(_sparse("", GIGA))
    return made.SerializeToString()


def constant_of_shape(elements: int) -> bytes:
    return made_of(node("ConstantOfShape", ["shape"], ["big"]), constants=[ints("shape", elements)])


def loop(times: int = 1_000_000) -> bytes:
    body = helper.make_graph(
        [
            node("Identity", ["condition"], ["again"]),
            node("Add", ["carried", "carried"], ["next"]),
        ],
        "body",
        [
            value("i", [], TensorProto.INT64),
            value("condition", [], TensorProto.BOOL),
            value("carried", [None, 1]),
        ],
        [value("again", [], TensorProto.BOOL), value("next", [None, 1])],
    )
    constants = [scalar("times", times), scalar("yes", True, np.bool_)]
    return model([node("Loop", ["times", "yes", "x"], ["y"], body=body)], constants).SerializeToString()


# --- data that lies elsewhere ---------------------------------------------------------------------


def elsewhere(name: str = "w", location: str = "/etc/passwd") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.UINT8, dims=[16])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.append(StringStringEntryProto(key="location", value=location))
    return tensor


def external_initializer(location: str = "/etc/passwd") -> bytes:
    made = harmless()
    made.graph.initializer.append(elsewhere(location=location))
    return made.SerializeToString()


def external_without_saying_so() -> bytes:
    """The location is there and `data_location` is not."""
    made = harmless()
    tensor = elsewhere()
    tensor.ClearField("data_location")
    made.graph.initializer.append(tensor)
    return made.SerializeToString()


def external_in_sparse(*, indices: bool) -> bytes:
    made = harmless()
    sparse = _sparse("s", 4)
    (sparse.indices if indices else sparse.values).CopyFrom(elsewhere("s"))
    made.graph.sparse_initializer.append(sparse)
    return made.SerializeToString()


def external_in_attribute() -> bytes:
    return model(
        [node("Constant", [], ["c"], value=elsewhere()), node("Add", ["x", "x"], ["y"])]
    ).SerializeToString()


def external_in_attribute_list() -> bytes:
    made = harmless()
    made.graph.node[0].attribute.add(name="more", type=9).tensors.append(elsewhere())
    return made.SerializeToString()


def external_in_subgraph() -> bytes:
    inner = helper.make_graph(
        [node("Identity", ["w"], ["z"])], "inner", [], [value("z", [16], 2)], [elsewhere()]
    )
    middle = helper.make_graph(
        [node("If", ["yes"], ["z"], then_branch=inner, else_branch=inner)],
        "middle",
        [],
        [value("z", [16], 2)],
    )
    outer = [
        node("If", ["yes"], ["c"], then_branch=middle, else_branch=middle),
        node("Add", ["x", "x"], ["y"]),
    ]
    return model(outer, [scalar("yes", True, np.bool_)]).SerializeToString()


def external_in_function(*, as_default: bool) -> bytes:
    body = [node("Constant", [], ["c"], value=elsewhere()), node("Identity", ["a"], ["b"])]
    function = helper.make_function(
        "f", "F", ["a"], ["b"], body[as_default:], [helper.make_opsetid("", OPSET)]
    )
    if as_default:
        function.attribute_proto.append(helper.make_attribute("w", elsewhere()))
    call = node("F", ["x"], ["y"], domain="f")
    return model([call], functions=[function], domains=["", "f"]).SerializeToString()


def external_in_training() -> bytes:
    made = harmless()
    graph = GraphProto(name="training", initializer=[elsewhere()])
    made.training_info.append(TrainingInfoProto(algorithm=graph))
    return made.SerializeToString()


# --- operators ------------------------------------------------------------------------------------


def of_domain(domain: str, operator: str = "Gelu") -> bytes:
    return model([node(operator, ["x"], ["y"], domain=domain)], domains=["", domain]).SerializeToString()


def unknown_operator() -> bytes:
    return model([node("System", ["x"], ["y"], command="rm -rf /")]).SerializeToString()


def two_opsets() -> bytes:
    made = harmless()
    made.opset_import.append(helper.make_opsetid("ai.onnx", 1))
    return made.SerializeToString()


def branches(depth: int = 1) -> bytes:
    leaf = graph = helper.make_graph([node("Identity", ["x"], ["z0"])], "leaf", [], [value("z0", [None, 1])])
    for level in range(1, depth):
        inner = node("If", ["yes"], [f"z{level}"], then_branch=graph, else_branch=leaf)
        graph = helper.make_graph([inner], f"level{level}", [], [value(f"z{level}", [None, 1])])
    top = node("If", ["yes"], ["y"], then_branch=graph, else_branch=leaf)
    return model([top], [scalar("yes", True, np.bool_)]).SerializeToString()


def scan() -> bytes:
    body = helper.make_graph([node("Identity", ["a"], ["b"])], "body", [value("a", [1])], [value("b", [1])])
    return model([node("Scan", ["x"], ["y"], body=body, num_scan_inputs=1)]).SerializeToString()


def graph_where_none_belongs() -> bytes:
    made = harmless()
    graph = GraphProto(name="stowaway", node=[node("Identity", ["x"], ["z"])])
    made.graph.node[0].attribute.append(helper.make_attribute("note", graph))
    return made.SerializeToString()


# --- tensors out of nothing -----------------------------------------------------------------------


def hidden_by_arithmetic() -> bytes:
    """The shape is a product of two harmless constants."""
    return made_of(
        node("Mul", ["a", "b"], ["shape"]),
        node("ConstantOfShape", ["shape"], ["big"]),
        constants=[ints("a", 2**15), ints("b", 2**15)],
    )


def hidden_by_reduction() -> bytes:
    """The shape is computed where shape inference cannot follow, and ONNX Runtime folds it while it loads."""
    return made_of(
        node("ReduceProd", ["factors"], ["shape"], keepdims=1),
        node("ConstantOfShape", ["shape"], ["big"]),
        constants=[ints("factors", *[2] * 31)],
    )


def doubling(times: int = 31) -> bytes:
    """Each step joins a tensor to itself."""
    steps = [node("Concat", [f"c{step}", f"c{step}"], [f"c{step + 1}"], axis=0) for step in range(times)]
    return made_of(
        *steps,
        node("Identity", [f"c{times}"], ["big"]),
        constants=[numpy_helper.from_array(np.ones(1, np.float32), "c0")],
    )


def grows_when_run() -> bytes:
    """Nothing is constant: the shape comes from the rows, and one row is enough for 4 GB."""
    nodes = [
        node("Shape", ["x"], ["rows"]),
        node("ReduceSum", ["rows"], ["one"], keepdims=1),
        node("Mul", ["one", "factor"], ["shape"]),
        node("ConstantOfShape", ["shape"], ["big"]),
        node("ReduceMean", ["big"], ["mean"], keepdims=0),
        node("Add", ["x", "mean"], ["y"]),
    ]
    return model(nodes, [ints("factor", GIGA // 2)]).SerializeToString()


def slow_folding(times: int = 400) -> bytes:
    """Matrix products of constants, which ONNX Runtime computes while it loads the model."""
    size = 1500
    nodes = [
        node("ConstantOfShape", ["shape"], ["m0"], value=numpy_helper.from_array(np.ones(1, np.float32)))
    ]
    nodes += [node("MatMul", [f"m{step}", "m0"], [f"m{step + 1}"]) for step in range(times)]
    return made_of(*nodes, node("Identity", [f"m{times}"], ["big"]), constants=[ints("shape", size, size)])


def declared_initializer(*dims: int) -> bytes:
    made = harmless()
    made.graph.initializer.append(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims))
    return made.SerializeToString()


def declared_output(*dims: int) -> bytes:
    return model([node("Add", ["x", "x"], ["y"])], outputs=[value("y", dims)]).SerializeToString()


def conv_with_pads() -> bytes:
    weights = numpy_helper.from_array(np.ones((1, 1, 1), np.float32), "w")
    nodes = [node("Unsqueeze", ["x", "axis"], ["u"]), node("Conv", ["u", "w"], ["y"], pads=[GIGA, GIGA])]
    return model(nodes, [ints("axis", 1), weights], outputs=[value("y", [None, 1, None])]).SerializeToString()


# --- protobuf -------------------------------------------------------------------------------------


def nested(depth: int = 5000) -> bytes:
    payload = b""
    for _ in range(depth):  # a graph in an attribute in a node in a graph
        payload = protobuf_field(1, protobuf_field(5, protobuf_field(6, payload)))
    return protobuf_field(7, payload)


def nested_types(depth: int = 5000) -> bytes:
    payload = b""
    for _ in range(depth):  # a sequence of sequences of sequences …
        payload = protobuf_field(4, protobuf_field(1, payload))
    return protobuf_field(7, protobuf_field(11, protobuf_field(2, payload)))


def crowd(number: int, count: int = 3_000_000) -> bytes:
    """Empty messages: two bytes in the file each, and a hundred times that when they are parsed."""
    head = harmless().SerializeToString()
    return head + protobuf_field(7, protobuf_field(number, b"") * count)


def crowd_of_attributes(count: int = 3_000_000) -> bytes:
    crowded = protobuf_field(5, b"") * count
    return harmless().SerializeToString() + protobuf_field(7, protobuf_field(1, crowded))


def crowd_outside(number: int, count: int = 3_000_000) -> bytes:
    return harmless().SerializeToString() + protobuf_field(number, b"") * count


def many_nodes(count: int = 150_000) -> bytes:
    body = node("Identity", ["x"], ["y"]).SerializeToString()
    return harmless().SerializeToString() + protobuf_field(7, protobuf_field(1, body) * count)


def long_dims(count: int = 1_000_000) -> bytes:
    return declared_initializer(*[2] * count)


def false_length() -> bytes:
    return harmless().SerializeToString() + varint(7 << 3 | 2) + varint(2**31 - 1) + b"x"


def false_text() -> bytes:
    return linear_classifier().replace(b"label", b"la\xffel")


def endless_varint() -> bytes:
    return harmless().SerializeToString() + b"\xff" * 1000


def twice() -> bytes:
    """Protobuf merges what comes twice: every node is there two times."""
    return linear_classifier() + linear_classifier()


def truncated() -> bytes:
    data = linear_classifier(64, 10)
    return data[: len(data) * 2 // 3]


class _Executed:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        import os

        return os.system, ("exit 1",)


def pickled() -> bytes:
    return pickle.dumps(_Executed())


# --- graphs and attributes that are wrong ----------------------------------------------------------


def division(numerator: int, denominator: int, operator: str = "Div") -> bytes:
    nodes = [
        node(operator, ["n", "d"], ["q"]),
        node("Cast", ["q"], ["f"], to=TensorProto.FLOAT),
        node("Add", ["x", "f"], ["y"]),
    ]
    return model(nodes, [ints("n", numerator), ints("d", denominator)]).SerializeToString()


def divides_by_input() -> bytes:
    nodes = [node("Div", ["one", "x"], ["y"])]
    return model(
        nodes,
        [ints("one", 1)],
        inputs=[value("x", [None, 1], TensorProto.INT64)],
        outputs=[value("y", [None, 1], TensorProto.INT64)],
    ).SerializeToString()


def circular_graph() -> bytes:
    return model([node("Add", ["b", "x"], ["y"]), node("Add", ["y", "x"], ["b"])]).SerializeToString()


def missing_input() -> bytes:
    return model([node("Add", ["x", "nowhere"], ["y"])]).SerializeToString()


def wrong_types() -> bytes:
    return model([node("Add", ["x", "n"], ["y"])], [ints("n", 1)]).SerializeToString()


def gather_outside() -> bytes:
    nodes = [node("Gather", ["data", "index"], ["g"]), node("Add", ["x", "g"], ["y"])]
    data = numpy_helper.from_array(np.ones(2, np.float32), "data")
    return model(nodes, [data, ints("index", 2**40)]).SerializeToString()


def tree(true_id: int, false_id: int) -> bytes:
    """A tree ensemble whose root leads to the nodes of these ids."""
    attributes = {
        "nodes_treeids": [0, 0, 0],
        "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_values": [0.5, 0.0, 0.0],
        "nodes_truenodeids": [true_id, 0, 0],
        "nodes_falsenodeids": [false_id, 0, 0],
        "target_treeids": [0, 0],
        "target_nodeids": [1, 2],
        "target_ids": [0, 0],
        "target_weights": [1.0, 2.0],
        "n_targets": 1,
    }
    regressor = node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", **attributes)
    return model([regressor], domains=["", "ai.onnx.ml"]).SerializeToString()


def tree_on_feature(feature: int) -> bytes:
    made = ModelProto.FromString(tree(1, 2))
    for attribute in made.graph.node[0].attribute:
        if attribute.name == "nodes_featureids":
            attribute.ints[0] = feature
    return made.SerializeToString()


def short_classifier() -> bytes:
    """Ten classes, and the coefficients of less than one."""
    nodes = [
        node(
            "LinearClassifier",
            ["x"],
            ["y", "scores"],
            domain="ai.onnx.ml",
            coefficients=[1.0],
            intercepts=[1.0],
            classlabels_ints=list(range(10)),
        )
    ]
    outputs = [value("y", [None], TensorProto.INT64), value("scores", [None, 10])]
    return model(nodes, outputs=outputs, domains=["", "ai.onnx.ml"]).SerializeToString()


def huge_lstm() -> bytes:
    nodes = [
        node("Unsqueeze", ["x", "axis"], ["u"]),
        node("LSTM", ["u", "w", "w"], ["y"], hidden_size=2**40),
    ]
    weights = numpy_helper.from_array(np.ones((1, 4, 1), np.float32), "w")
    return model(nodes, [ints("axis", 0), weights]).SerializeToString()


def long_name(length: int = 3 * MIB) -> bytes:
    name = "y" * length
    return model([node("Add", ["x", "x"], [name])], outputs=[value(name, [None, 1])]).SerializeToString()


def many_outputs(count: int = 20_000) -> bytes:
    names = [f"output_number_{index}" for index in range(count)]
    nodes = [node("Identity", ["x"], [name]) for name in names]
    return model(nodes, outputs=[value(name, [None, 1]) for name in names]).SerializeToString()


def not_a_number() -> bytes:
    weights = numpy_helper.from_array(np.array([np.nan], np.float32), "w")
    return model([node("Add", ["x", "w"], ["y"])], [weights]).SerializeToString()


def told(**properties: str) -> bytes:
    made = harmless()
    helper.set_model_props(made, {f"ferryline.{key}": text for key, text in properties.items()})
    return made.SerializeToString()


def complex_output() -> bytes:
    made = harmless()
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.COMPLEX64
    return made.SerializeToString()


def sequence_output() -> bytes:
    made = model([node("SequenceConstruct", ["x"], ["y"])])
    made.graph.output[0].type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT
    return made.SerializeToString()


def future_opset() -> bytes:
    made = harmless()
    made.opset_import[0].version = 2**40
    return made.SerializeToString()


# --- the table ------------------------------------------------------------------------------------

_LOOSE_FUNCTIONS = GateLimits(
    wall_seconds=DEADLINE,
    allow_functions=True,
    max_depth=10_000,
    full_check=False,
    domains=(*STANDARD_DOMAINS, "chain"),
)
_WITH_FUNCTIONS = GateLimits(wall_seconds=DEADLINE, allow_functions=True, max_depth=64)
_WITH_CONTROL_FLOW = GateLimits(wall_seconds=DEADLINE, allow_control_flow=True)
# memory enough that the products kept do not decide it first
_HURRIED = GateLimits(wall_seconds=2.0, base_memory_bytes=16 * GIGA)
_CHEAP = GateLimits(wall_seconds=DEADLINE, cpu_seconds=1.0, base_memory_bytes=16 * GIGA)


def _of(*gates: str) -> frozenset[str]:
    return frozenset(gates)


HOSTILE: dict[str, Hostile] = {
    # the field notes
    "function chain": Hostile(function_chain, _of("functions")),
    "function chain, functions allowed": Hostile(function_chain, _of("functions"), _WITH_FUNCTIONS),
    "function chain, everything allowed": Hostile(function_chain, _of("crash"), _LOOSE_FUNCTIONS),
    "sparse initializer of 1 GB": Hostile(sparse_initializer, _of("sparse")),
    "sparse initializer of 1 GB, sparse allowed": Hostile(
        sparse_initializer, _of("shapes"), GateLimits(wall_seconds=DEADLINE, allow_sparse=True)
    ),
    "sparse initializer of 1 GB, everything allowed": Hostile(
        sparse_initializer,
        _of("memory"),
        GateLimits(wall_seconds=DEADLINE, allow_sparse=True, max_tensor_bytes=2**40, full_check=False),
    ),
    "constant of 1 GB": Hostile(lambda: constant_of_shape(GIGA // 4), _of("shapes")),
    "constant of 6 GB": Hostile(lambda: constant_of_shape(6 * GIGA // 4), _of("shapes")),
    "constant of 1 GB, big tensors allowed": Hostile(
        lambda: constant_of_shape(GIGA // 4),
        _of("memory"),
        GateLimits(wall_seconds=DEADLINE, max_tensor_bytes=2**40),
    ),
    "constant of 6 GB, big tensors allowed": Hostile(
        lambda: constant_of_shape(6 * GIGA // 4),
        _of("memory"),
        GateLimits(wall_seconds=DEADLINE, max_tensor_bytes=2**40),
    ),
    "loop": Hostile(loop, _of("control-flow")),
    "long loop, control flow allowed, by the clock": Hostile(
        lambda: loop(2**40), _of("time"), GateLimits(wall_seconds=2.0, allow_control_flow=True)
    ),
    "long loop, control flow allowed, by the processor": Hostile(
        lambda: loop(2**40),
        _of("time"),
        GateLimits(wall_seconds=DEADLINE, cpu_seconds=1.0, allow_control_flow=True),
    ),
    # data that lies elsewhere
    "external initializer": Hostile(external_initializer, _of("external-data")),
    "external initializer up the tree": Hostile(
        lambda: external_initializer("../../../etc/passwd"), _of("external-data")
    ),
    "external without saying so": Hostile(external_without_saying_so, _of("external-data")),
    "external values of a sparse one": Hostile(
        lambda: external_in_sparse(indices=False), _of("external-data")
    ),
    "external indices of a sparse one": Hostile(
        lambda: external_in_sparse(indices=True), _of("external-data")
    ),
    "external in an attribute": Hostile(external_in_attribute, _of("external-data")),
    "external in a list of tensors": Hostile(external_in_attribute_list, _of("external-data")),
    "external in a branch of a branch": Hostile(external_in_subgraph, _of("external-data")),
    "external in a function": Hostile(lambda: external_in_function(as_default=False), _of("external-data")),
    "external in a function's default": Hostile(
        lambda: external_in_function(as_default=True), _of("external-data")
    ),
    "external in training information": Hostile(external_in_training, _of("external-data")),
    # operators
    "Python operator": Hostile(lambda: of_domain("ai.onnx.contrib", "PyOp"), _of("operators")),
    "contrib operator": Hostile(lambda: of_domain("com.microsoft"), _of("operators")),
    "contrib operator, allowed": Hostile(
        lambda: of_domain("com.microsoft"),
        _of(SERVED),
        GateLimits(domains=(*STANDARD_DOMAINS, "com.microsoft")),
    ),
    "unknown operator": Hostile(unknown_operator, _of("operators")),
    "two opsets": Hostile(two_opsets, _of("operators")),
    "future opset": Hostile(future_opset, _of("checker", "load")),
    "function circle": Hostile(function_circle, _of("functions"), _WITH_FUNCTIONS),
    "function tree": Hostile(function_tree, _of("nodes"), _WITH_FUNCTIONS),
    "branch": Hostile(branches, _of("control-flow")),
    "deep branches, control flow allowed": Hostile(
        lambda: branches(20), _of("nodes", "parse"), _WITH_CONTROL_FLOW
    ),
    "scan": Hostile(scan, _of("control-flow")),
    "graph where none belongs": Hostile(graph_where_none_belongs, _of("control-flow")),
    "sparse constant": Hostile(sparse_constant, _of("sparse")),
    # tensors out of nothing
    "expand": Hostile(
        lambda: made_of(
            node("Expand", ["one", "shape"], ["big"]),
            constants=[scalar("one", 1, np.float32), ints("shape", 2**15, 2**16)],
        ),
        _of("shapes"),
    ),
    "tile": Hostile(
        lambda: made_of(
            node("Tile", ["one", "repeats"], ["big"]),
            constants=[numpy_helper.from_array(np.ones(8, np.float32), "one"), ints("repeats", 2**28)],
        ),
        _of("shapes"),
    ),
    "range": Hostile(
        lambda: made_of(
            node("Range", ["start", "limit", "delta"], ["numbers"]),
            node("Cast", ["numbers"], ["big"], to=TensorProto.FLOAT),
            constants=[scalar("start", 0), scalar("limit", 2**40), scalar("delta", 1)],
        ),
        _of("shapes"),
    ),
    "random numbers": Hostile(
        lambda: made_of(node("RandomNormal", [], ["big"], shape=[2**20, 2**12])), _of("shapes")
    ),
    "pads": Hostile(
        lambda: made_of(
            node("Pad", ["one", "pads"], ["big"]),
            constants=[numpy_helper.from_array(np.ones(1, np.float32), "one"), ints("pads", 0, 2**34)],
        ),
        _of("shapes"),
    ),
    "resize": Hostile(
        lambda: made_of(
            node("Resize", ["one", "", "", "sizes"], ["big"]),
            constants=[
                numpy_helper.from_array(np.ones((1, 1), np.float32), "one"),
                ints("sizes", 2**17, 2**17),
            ],
        ),
        _of("shapes"),
    ),
    "window": Hostile(
        lambda: made_of(node("HannWindow", ["size"], ["big"]), constants=[scalar("size", 2**34)]),
        _of("shapes"),
    ),
    "shape hidden by arithmetic": Hostile(hidden_by_arithmetic, _of("shapes")),
    "shape hidden by a reduction": Hostile(hidden_by_reduction, _of("memory")),
    "doubling": Hostile(doubling, _of("shapes", "memory")),
    "doubling, big tensors allowed": Hostile(
        doubling, _of("memory"), GateLimits(wall_seconds=DEADLINE, max_tensor_bytes=2**60)
    ),
    "grows when run": Hostile(grows_when_run, _of("memory")),
    "slow folding, by the clock": Hostile(slow_folding, _of("time"), _HURRIED),
    "slow folding, by the processor": Hostile(slow_folding, _of("time"), _CHEAP),
    "initializer without data": Hostile(lambda: declared_initializer(2**20, 2**20), _of("shapes")),
    "initializer of overflowing size": Hostile(
        lambda: declared_initializer(2**62, 2**62, 2**62), _of("shapes")
    ),
    "initializer of negative size": Hostile(lambda: declared_initializer(-1), _of("shapes")),
    "initializer of a million dimensions": Hostile(long_dims, _of("shapes")),
    "output of 2 to the 62": Hostile(lambda: declared_output(1, 2**62), _of("shapes")),
    "convolution with pads": Hostile(conv_with_pads, _of("shapes", "memory")),
    # protobuf
    "nothing": Hostile(lambda: b"", _of("parse")),
    "zeros": Hostile(lambda: bytes(4096), _of("parse")),
    "pickle": Hostile(pickled, _of("parse")),
    "nested graphs": Hostile(nested, _of("parse")),
    "nested types": Hostile(nested_types, _of("parse")),
    "crowd of nodes": Hostile(lambda: crowd(1), _of("nodes", "memory")),
    "crowd of initializers": Hostile(lambda: crowd(5), _of("nodes", "memory")),
    "crowd of values": Hostile(lambda: crowd(13), _of("nodes", "memory")),
    "too many nodes": Hostile(many_nodes, _of("nodes")),
    "false length": Hostile(false_length, _of("parse")),
    "false text": Hostile(false_text, _of("parse")),
    "endless varint": Hostile(endless_varint, _of("parse")),
    "truncated": Hostile(truncated, _of("parse")),
    "everything twice": Hostile(twice, _of("checker")),
    "crowd of attributes": Hostile(crowd_of_attributes, _of("nodes", "memory")),
    "crowd of opsets": Hostile(lambda: crowd_outside(8), _of("nodes", "memory", "parse")),
    "crowd of functions": Hostile(lambda: crowd_outside(25), _of("nodes", "memory", "functions")),
    "crowd of properties": Hostile(lambda: crowd_outside(14), _of("nodes", "memory")),
    # graphs and attributes that are wrong
    "division by zero": Hostile(lambda: division(1, 0), _of("load", "crash")),
    "remainder by zero": Hostile(lambda: division(1, 0, "Mod"), _of("load", "crash")),
    "division that overflows": Hostile(lambda: division(-(2**63), -1), _of("crash", SERVED)),
    "division by the input": Hostile(divides_by_input, _of("crash", SERVED)),
    "circular graph": Hostile(circular_graph, _of("checker")),
    "missing input": Hostile(missing_input, _of("checker")),
    "wrong types": Hostile(wrong_types, _of("checker", "load")),
    "gather outside": Hostile(gather_outside, _of("load", SERVED)),
    "tree that is a circle": Hostile(lambda: tree(0, 0), _of("load", "crash", "time", "memory")),
    "tree of missing nodes": Hostile(lambda: tree(7, 9), _of("load", "crash")),
    "tree on a feature that is not there": Hostile(
        lambda: tree_on_feature(2**40), _of("load", "crash", SERVED)
    ),
    "classifier without coefficients": Hostile(short_classifier, _of("checker", "load", "crash")),
    "huge recurrent layer": Hostile(huge_lstm, _of("checker", "load", "memory", "shapes")),
    "long name": Hostile(long_name, _of("contract")),
    "many outputs": Hostile(many_outputs, _of("contract")),
    "no numbers": Hostile(not_a_number, _of(SERVED)),
    "classes nested deep": Hostile(lambda: told(classes="[" * 100_000), _of("contract")),
    "role of no meaning": Hostile(lambda: told(**{"role.y": "oracle"}), _of("contract")),
    "complex output": Hostile(complex_output, _of("contract")),
    "sequence output": Hostile(sequence_output, _of("contract")),
}
