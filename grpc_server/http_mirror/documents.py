"""Messages as JSON and parameters from JSON.

Protobuf's own JSON form writes numbers of 64 bits as strings; the REST protocol writes numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from google.protobuf.message import Message

from ferryline.grpc_server.errors import InvalidRequestError, shortened
from ferryline.protos.grpc_service_pb2 import InferParameter

_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)


def message_json(message: Message) -> dict[str, Any]:
    """A message as a JSON object: all fields that have no presence, and those others that are set."""
    fields = message.DESCRIPTOR.fields
    return {
        field.name: _value(getattr(message, field.name), field)
        for field in fields
        if not field.has_presence or message.HasField(field.name)
    }


# protobuf's descriptors are of another class in each of its implementations
def _value(value: Any, field: Any) -> Any:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        inner = entry.fields_by_name["value"]
        return {key: _single(value[key], inner) for key in sorted(value)}
    if field.label == field.LABEL_REPEATED:
        return [_single(each, field) for each in value]
    return _single(value, field)


def _single(value: Any, field: Any) -> Any:
    if isinstance(value, InferParameter):
        return parameter_json(value)
    if isinstance(value, Message):
        return message_json(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value


def parameter_json(parameter: InferParameter) -> Any:
    """The value of a parameter; None where it has none."""
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)


def read_parameters(given: object, target: Mapping[str, InferParameter], what: str) -> None:
    """Copy the parameters of a JSON object into a message's map of them.

    Args:
        given: the object; None where the request has none.
        target: the map, whose entries come to be by being asked for.
        what: what the parameters are of, for an error's text.

    Raises:
        InvalidRequestError: it is no object of booleans, numbers and strings.
    """
    if given is None:
        return
    for name, value in as_object(given, f"the parameters of {what}").items():
        parameter = target[name]
        match value:
            case bool():
                parameter.bool_param = value
            case int() if value in _INT64:
                parameter.int64_param = value
            case int() if value in _UINT64:
                parameter.uint64_param = value
            case float():
                parameter.double_param = value
            case str():
                parameter.string_param = value
            case _:
                raise InvalidRequestError(
                    f"the parameter {shortened(name)} of {what} is no boolean, number of 64 bits or string"
                )


def read_json(data: bytes, what: str) -> Any:
    """The value that `data` say.

    Raises:
        InvalidRequestError: they are no JSON.
    """
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"{what} is no JSON: {error}") from error


def as_object(value: object, what: str) -> dict[str, Any]:
    """`value`, which must be a JSON object.

    Raises:
        InvalidRequestError: it is not.
    """
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{what} must be a JSON object")
    return value


def as_list(value: object, what: str) -> list[Any]:
    """`value`, which must be a JSON array.

    Raises:
        InvalidRequestError: it is not.
    """
    if not isinstance(value, list):
        raise InvalidRequestError(f"{what} must be a JSON array")
    return value


def as_text(value: object, what: str) -> str:
    """`value`, which must be a string.

    Raises:
        InvalidRequestError: it is not.
    """
    if not isinstance(value, str):
        raise InvalidRequestError(f"{what} must be a string")
    return value
