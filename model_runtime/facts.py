"""What an ONNX file says about itself: inputs, outputs and their roles, classes, opset.

A file may state its roles and classes in `metadata_props` (`ferryline.role.<output>`, `ferryline.classes`),
as the trainer's do. Where it does not, they are inferred: floats are scores, or probabilities where their
name says so, and what else a classifier gives is the label.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast, get_args

import onnx
import orjson
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, ValueInfoProto
from pydantic import ValidationError

from ferryline.registry.documents import Dtype, Label, ModelFacts, Role, TensorSpec
from ferryline.registry.errors import RefusedError

_OURS = "ferryline."
_FORMER = "modelferry."  # files that were written under the product's former name are read for ever
ROLE_PROPERTY = f"{_OURS}role."
CLASSES_PROPERTY = f"{_OURS}classes"
FREE = -1

_REMEDY = "Export the model as ONNX and publish that file"
_DOMAIN = ("", "ai.onnx")
_CLASS_ATTRIBUTES = {"classlabels_ints", "classlabels_int64s", "classlabels_strings"}
_DTYPES: dict[int, str] = {
    TensorProto.BOOL: "bool",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.INT8: "int8",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.STRING: "string",
    TensorProto.UINT8: "uint8",
    TensorProto.UINT16: "uint16",
    TensorProto.UINT32: "uint32",
    TensorProto.UINT64: "uint64",
}


def read_facts(data: bytes) -> ModelFacts:
    """The facts of an ONNX file that is trusted: of one's own making, or past the load gate.

    A file of unknown origin may exhaust the process that parses it, so that is left to the gate.

    Raises:
        RefusedError: the bytes are no ONNX model (gate `parse`), or one of its inputs or outputs is nothing
            that can be served (gate `contract`).
    """
    return facts_of(parse_model(data))


def parse_model(data: bytes) -> ModelProto:
    """The bytes as a model.

    Raises:
        RefusedError: they are none (gate `parse`).
    """
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise RefusedError("parse", "the bytes are no ONNX file", _REMEDY) from error
    if not model.graph.output or not model.opset_import:
        raise RefusedError("parse", "the file holds no ONNX graph with outputs", _REMEDY)
    return model


def facts_of(model: ModelProto) -> ModelFacts:
    """The facts of a parsed model.

    Raises:
        RefusedError: as `read_facts`.
    """
    try:
        return _facts(model)
    except ValueError as error:  # damaged in a way that protobuf lets pass: texts, numbers of no meaning
        raise RefusedError("parse", f"the ONNX file is damaged: {_brief(error)}", _REMEDY) from error


def _brief(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        return error.errors(include_url=False, include_input=False)[0]["msg"]
    return str(error)


def _facts(model: ModelProto) -> ModelFacts:
    properties = _stated(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    classes = _classes(model, properties)
    return ModelFacts(
        opset=next((item.version for item in model.opset_import if item.domain in _DOMAIN), 0),
        ir_version=model.ir_version,
        inputs=tuple(_tensor(value) for value in model.graph.input if value.name not in weights),
        outputs=tuple(_output(value, properties, classes) for value in model.graph.output),
        classes=classes,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
    )


def _stated(model: ModelProto) -> dict[str, str]:
    told = {item.key: item.value for item in model.metadata_props}
    former = {key: value for key, value in told.items() if key.startswith(_FORMER)}
    return {_OURS + key.removeprefix(_FORMER): value for key, value in former.items()} | told


def _tensor(value: ValueInfoProto, role: Role | None = None) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        raise RefusedError(
            "contract",
            f"{value.name!r} is a {value.type.WhichOneof('value') or 'value without type'}, not a tensor",
            "Convert with zipmap=False, so that every input and output is a tensor",
        )
    tensor = value.type.tensor_type
    dtype = _DTYPES.get(tensor.elem_type)
    if dtype is None:
        raise RefusedError(
            "contract",
            f"{value.name!r} has element type {TensorProto.DataType.Name(tensor.elem_type)}",
            f"Use one of {', '.join(get_args(Dtype))}",
        )
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else FREE for dim in tensor.shape.dim)
    return TensorSpec(name=value.name, dtype=cast("Dtype", dtype), shape=shape, role=role)


def _output(
    value: ValueInfoProto, properties: dict[str, str], classes: tuple[Label, ...] | None
) -> TensorSpec:
    spec = _tensor(value)
    stated = properties.get(ROLE_PROPERTY + value.name)
    if stated is None:
        return spec.model_copy(update={"role": _inferred_role(spec, classes)})
    if stated not in set(Role):
        raise RefusedError(
            "contract",
            f"output {value.name!r} states the role {stated[:80]!r}",
            f"Use one of {', '.join(Role)}",
        )
    return spec.model_copy(update={"role": Role(stated)})


def _inferred_role(spec: TensorSpec, classes: tuple[Label, ...] | None) -> Role | None:
    name = spec.name.lower()
    if spec.dtype.startswith("float"):
        return Role.PROBABILITY if "prob" in name else Role.SCORE
    return Role.LABEL if classes is not None or "label" in name else None


def _classes(model: ModelProto, properties: dict[str, str]) -> tuple[Label, ...] | None:
    if CLASSES_PROPERTY in properties:
        return _stated_classes(properties[CLASSES_PROPERTY])
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name in _CLASS_ATTRIBUTES:
                return tuple(_attribute_values(attribute.ints, attribute.strings))
    return None


def _stated_classes(text: str) -> tuple[Label, ...]:
    try:
        classes = orjson.loads(text)
    except orjson.JSONDecodeError:
        classes = None
    if not isinstance(classes, list) or not all(isinstance(label, Label) for label in classes):
        raise RefusedError(
            "contract",
            f"the classes in its metadata are {text[:80]!r}",
            "State a JSON list of numbers, strings or booleans",
        )
    return tuple(classes)


def _attribute_values(ints: Iterable[int], strings: Iterable[bytes]) -> list[Label]:
    return [int(value) for value in ints] or [value.decode() for value in strings]
