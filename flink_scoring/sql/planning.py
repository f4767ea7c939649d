"""From a model's contract to the signature of a SQL function, and to what the function does with its columns.

    float16, float32, float64  DOUBLE       one input [-1, n]       n arguments, or one ARRAY
    int8 … uint64              BIGINT       many inputs [-1, 1]     one argument each
    string                     STRING       output [-1] or [-1, 1]  a value
    bool                       BOOLEAN      output [-1, n]          an ARRAY

The batch comes first and must be free. What is planned for one version holds for each that gives the same
signature; how its tensors are fed may differ, as when one is float32 and the next float64.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ferryline.flink_scoring.sql.config import FunctionSpec, Shape
from ferryline.flink_scoring.sql.kinds import Argument, Field, Kind, Signature, SqlType
from ferryline.registry.documents import Label, ModelFacts, Role, TensorSpec
from ferryline.registry.errors import RefusedError, UsageError

GATE = "contract"
PREDICTION = "prediction"
MODEL_FIELDS = (Field("version", SqlType(Kind.BIGINT)), Field("generation", SqlType(Kind.BIGINT)))
MOST_ARGUMENTS = 250
"""A call of a Java method, which a planned query becomes, has at most 255."""

_FREE = -1
_MATRIX = 2


@dataclass(frozen=True, slots=True)
class Feed:
    """How one input of the model is made from arguments.

    Attributes:
        tensor: the input.
        positions: of the arguments: one that is an array, or one for each number of a row.
        width: numbers in a row, -1 where rows may differ.
    """

    tensor: TensorSpec
    positions: tuple[int, ...]
    width: int


@dataclass(frozen=True, slots=True)
class Answer:
    """How one field of the result is made from an output of the model.

    Attributes:
        tensor: the output.
        type: of the field.
        classes: what the numbers of a label mean, by position; None where the output says it itself.
    """

    tensor: TensorSpec
    type: SqlType
    classes: tuple[Label, ...] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A function for one version of a model."""

    signature: Signature
    feeds: tuple[Feed, ...]
    answers: tuple[Answer, ...]


def plan_function(name: str, spec: FunctionSpec, facts: ModelFacts) -> Plan:
    """Plan a function for a version of its model.

    Args:
        name: the function's name.
        spec: what the file of functions says of it.
        facts: the version, as its manifest or its file describes it.

    Raises:
        UsageError: what the file says does not fit the model.
        RefusedError: SQL cannot call such a model (gate `contract`).
    """
    features = _features(name, spec, facts)
    if len(features) > MOST_ARGUMENTS:
        raise UsageError(
            f"{name}: {len(features)} arguments are too many for Flink; give the model one input, "
            'say shape = "array" and call it with one ARRAY'
        )
    order, names = _arranged(name, spec, [feature.name for feature in features])
    arguments = tuple(
        Argument(argument, features[place].type, features[place].name)
        for argument, place in zip(names, order, strict=True)
    )
    answers = {field: _answer(name, output, facts) for field, output in _returned(name, spec, facts).items()}
    fields = tuple(Field(field, answer.type) for field, answer in answers.items())
    signature = Signature(name, arguments, *_result(name, spec, fields))
    return Plan(signature, _feeds(features, order, facts), tuple(answers.values()))


def require_signature(signature: Signature, spec: FunctionSpec) -> Callable[[ModelFacts], None]:
    """What a follower asks of a new version: that queries planned with `signature` can go on with it.

    Returns:
        Raises `RefusedError` (gate `contract`) for a version that gives another signature.
    """

    def accept(facts: ModelFacts) -> None:
        remedy = "Promote a version of that contract, or start the query anew to plan it with this one"
        try:
            found = plan_function(signature.name, spec, facts).signature
        except UsageError as error:
            raise RefusedError(GATE, str(error), remedy) from error
        if found != signature:
            raise RefusedError(
                GATE, f"queries were planned with {signature}; this version is {found}", remedy
            )

    return accept


# --- arguments ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Feature:
    name: str
    type: SqlType
    tensor: TensorSpec


def _features(name: str, spec: FunctionSpec, facts: ModelFacts) -> list[_Feature]:
    """What the model takes, in its own order."""
    if not facts.inputs:
        raise _uncallable(name, "the model has no input")
    for tensor in facts.inputs:
        _require_batch(name, tensor)
    if len(facts.inputs) == 1:
        return _features_of_matrix(name, spec, facts.inputs[0])
    if spec.shape is not None:
        raise UsageError(f"{name}: shape is for a model with one input; this one has {_listed(facts.inputs)}")
    return [_whole(tensor) for tensor in facts.inputs]


def _features_of_matrix(name: str, spec: FunctionSpec, tensor: TensorSpec) -> list[_Feature]:
    width = _width(tensor)
    if width == _FREE and spec.arguments is not None and spec.shape is not Shape.ARRAY:
        width = len(spec.arguments)
    by_columns = len(tensor.shape) <= _MATRIX and width != _FREE
    if spec.shape is Shape.ARRAY or (spec.shape is None and not by_columns):
        return [_Feature(tensor.name, SqlType(_kind(tensor), is_array=True), tensor)]
    if not by_columns:
        raise UsageError(
            f"{name}: input {tensor.name!r} has shape {list(tensor.shape)}, so its columns "
            'cannot be counted; name them in arguments, or say shape = "array"'
        )
    scalar = SqlType(_kind(tensor))
    if len(tensor.shape) < _MATRIX or width == 1:
        return [_Feature(tensor.name, scalar, tensor)]
    return [_Feature(f"{tensor.name}_{column}", scalar, tensor) for column in range(width)]


def _whole(tensor: TensorSpec) -> _Feature:
    return _Feature(tensor.name, SqlType(_kind(tensor), is_array=_width(tensor) != 1), tensor)


def _arranged(name: str, spec: FunctionSpec, features: list[str]) -> tuple[list[int], list[str]]:
    """The features' places in the order of the arguments, and the arguments' names."""
    places = list(range(len(features)))
    match spec.arguments:
        case None:
            return places, _identifiers(features)
        case dict() as table:
            return _placed(name, features, list(table.values())), list(table)
        case names if set(names).isdisjoint(features):
            if len(names) != len(features):
                raise UsageError(
                    f"{name}: arguments names {len(names)}, the model takes {len(features)}: "
                    f"{', '.join(features)}"
                )
            return places, list(names)
        case names:
            return _placed(name, features, list(names)), list(names)


def _placed(name: str, features: list[str], wanted: list[str]) -> list[int]:
    if sorted(features) != sorted(wanted):
        raise UsageError(
            f"{name}: arguments must name each of the model's features once ({', '.join(features)}) "
            f"and names {', '.join(wanted)}"
        )
    return [features.index(feature) for feature in wanted]


def _identifiers(features: Sequence[str]) -> list[str]:
    """The features' names as SQL can write them without quotes, all different in whatever case."""
    found: dict[str, str] = {}
    for feature in features:
        base = re.sub(r"\W", "_", feature, flags=re.ASCII)
        base = base if re.match(r"[A-Za-z_]", base) else f"_{base}"
        candidates = (base, *(f"{base}_{number}" for number in range(2, len(features) + 2)))
        name = next(each for each in candidates if each.lower() not in found)
        found[name.lower()] = name
    return list(found.values())


def _feeds(features: Sequence[_Feature], order: Sequence[int], facts: ModelFacts) -> tuple[Feed, ...]:
    def positions(tensor: TensorSpec) -> tuple[int, ...]:
        own = (place for place, feature in enumerate(features) if feature.tensor is tensor)
        return tuple(order.index(place) for place in own)

    found = {tensor.name: positions(tensor) for tensor in facts.inputs}
    is_array = {feature.tensor.name: feature.type.is_array for feature in features}
    return tuple(
        Feed(
            tensor,
            found[tensor.name],
            _width(tensor) if is_array[tensor.name] else len(found[tensor.name]),
        )
        for tensor in facts.inputs
    )


# --- the result -----------------------------------------------------------------------------------


def _returned(name: str, spec: FunctionSpec, facts: ModelFacts) -> Mapping[str, TensorSpec]:
    """The outputs by the names of their fields."""
    if spec.returns is None:
        label = next((output for output in facts.outputs if output.role is Role.LABEL), facts.outputs[0])
        return {PREDICTION: label}
    if isinstance(spec.returns, str):
        return {PREDICTION: _output(name, spec.returns, facts)}
    return {wanted: _output(name, wanted, facts) for wanted in spec.returns}


def _output(name: str, wanted: str, facts: ModelFacts) -> TensorSpec:
    """The output called `wanted`, else the one with that role."""
    for found in (
        [output for output in facts.outputs if output.name == wanted],
        [output for output in facts.outputs if output.role == wanted],
    ):
        if len(found) == 1:
            return found[0]
    outputs = ", ".join(
        f"{output.name} ({output.role})" if output.role else output.name for output in facts.outputs
    )
    raise UsageError(f"{name}: returns = {wanted!r} names none or several of the model's outputs: {outputs}")


def _answer(name: str, output: TensorSpec, facts: ModelFacts) -> Answer:
    _require_batch(name, output)
    is_array = _width(output) != 1
    if output.role is not Role.LABEL or is_array or not facts.classes or output.dtype == "string":
        return Answer(output, SqlType(_kind(output), is_array=is_array))
    # a classifier's numbers stand for its classes, which ONNX cannot hold where they are words or booleans
    if all(isinstance(label, str) for label in facts.classes):
        return Answer(output, SqlType(Kind.STRING), facts.classes)
    if all(isinstance(label, bool) for label in facts.classes):
        return Answer(output, SqlType(Kind.BOOLEAN))
    return Answer(output, SqlType(_kind(output)))


def _result(name: str, spec: FunctionSpec, fields: tuple[Field, ...]) -> tuple[tuple[Field, ...], bool]:
    is_row = spec.with_model or not isinstance(spec.returns, str | None)
    if not spec.with_model:
        return fields, is_row
    if taken := {field.name for field in fields} & {field.name for field in MODEL_FIELDS}:
        raise UsageError(
            f"{name}: an output is called {min(taken)!r}, as a field of with_model is; return it by its role"
        )
    return (*fields, *MODEL_FIELDS), is_row


# --- tensors --------------------------------------------------------------------------------------


def _kind(tensor: TensorSpec) -> Kind:
    if tensor.dtype.startswith("float"):
        return Kind.DOUBLE
    return {"string": Kind.STRING, "bool": Kind.BOOLEAN}.get(tensor.dtype, Kind.BIGINT)


def _width(tensor: TensorSpec) -> int:
    """Numbers in a row, -1 where that is not said."""
    sizes = tensor.shape[1:]
    return _FREE if _FREE in sizes else math.prod(sizes)


def _require_batch(name: str, tensor: TensorSpec) -> None:
    is_ragged = len(tensor.shape) > _MATRIX and _FREE in tensor.shape[1:]
    if not tensor.shape or tensor.shape[0] != _FREE or is_ragged or 0 in tensor.shape:
        raise _uncallable(
            name,
            f"{tensor.name!r} has shape {list(tensor.shape)}, and rows of a table make batches of any number",
        )


def _uncallable(name: str, reason: str) -> RefusedError:
    return RefusedError(GATE, f"{name}: {reason}", "Export it with a free first dimension for the batch")


def _listed(tensors: Sequence[TensorSpec]) -> str:
    return ", ".join(tensor.name for tensor in tensors)
