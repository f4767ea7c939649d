"""An inference over HTTP: its body to a message, and the reply's message to a body.

A tensor's elements are JSON, or binary behind the JSON in the order of the tensors; then the header
Inference-Header-Content-Length says how long the JSON is. Either form can be chosen for each tensor, in the
request as in the reply.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from ferryline.grpc_server import datatypes
from ferryline.grpc_server.errors import InvalidRequestError, shortened
from ferryline.grpc_server.http_mirror.documents import (
    as_list,
    as_object,
    as_text,
    parameter_json,
    read_json,
    read_parameters,
)
from ferryline.grpc_server.http_mirror.elements import json_elements, raw_from_json
from ferryline.grpc_server.tensors import decode_raw
from ferryline.protos.grpc_service_pb2 import InferParameter, ModelInferRequest, ModelInferResponse

HEADER_LENGTH = "Inference-Header-Content-Length"

BINARY_SIZE = "binary_data_size"
BINARY_OUTPUT = "binary_data"
ALL_BINARY = "binary_data_output"
SHARED_MEMORY = "shared_memory_region"

_MOST_DIGITS = 10
"""Of a length; no message is as long as that."""
_INT64 = range(-(2**63), 2**63)


@dataclass(slots=True)
class HttpInference:
    """A request, and in which form its caller wants the outputs.

    Args:
        request: the message.
        all_binary: whether outputs are binary unless said otherwise.
        binary: what is said otherwise, by output.
    """

    request: ModelInferRequest
    all_binary: bool = False
    binary: dict[str, bool] = field(default_factory=dict)

    def wants_binary(self, output: str) -> bool:
        """Whether the caller wants that output's elements binary."""
        return self.binary.get(output, self.all_binary)


def read_inference(model: str, version: str, body: bytes, header_length: str | None) -> HttpInference:
    """The message that a body carries.

    Args:
        model: the model that the path names.
        version: the version that the path names, or none.
        body: all bytes of the request.
        header_length: the header `HEADER_LENGTH`, None where there is none.

    Raises:
        InvalidRequestError: it is no inference.
    """
    head_size = _head_size(header_length, len(body))
    head = as_object(read_json(body[:head_size], "the request"), "the request")
    binary = _Binary(body, head_size)
    request = ModelInferRequest(model_name=model, model_version=version)
    request.id = as_text(head.get("id", ""), "the request's id")
    read_parameters(head.get("parameters"), request.parameters, "the request")
    inference = HttpInference(request, all_binary=_taken_flag(request.parameters, ALL_BINARY) or False)
    for described in as_list(head.get("inputs", []), "inputs"):
        _read_input(as_object(described, "an input"), request, binary)
    for described in as_list(head.get("outputs", []), "outputs"):
        _read_output(as_object(described, "an output"), inference)
    binary.require_end()
    return inference


def write_reply(reply: ModelInferResponse, inference: HttpInference) -> tuple[bytes, int | None]:
    """The body of a reply, and the length of the JSON where something binary follows it."""
    head: dict[str, Any] = {"model_name": reply.model_name, "model_version": reply.model_version}
    if reply.id:
        head["id"] = reply.id
    head["parameters"] = {name: parameter_json(value) for name, value in sorted(reply.parameters.items())}
    head["outputs"] = outputs = []
    parts: list[bytes] = []
    for tensor, raw in zip(reply.outputs, reply.raw_output_contents, strict=True):
        shape = list(tensor.shape)
        described: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": shape}
        if inference.wants_binary(tensor.name):
            described["parameters"] = {BINARY_SIZE: len(raw)}
            parts.append(raw)
        else:
            datatype = datatypes.of_protocol(tensor.datatype)
            described["data"] = json_elements(decode_raw(raw, datatype, shape), datatype)
        outputs.append(described)
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join((text, *parts)), len(text)) if parts else (text, None)


class _Binary:
    """The bytes behind the JSON, taken from the front."""

    def __init__(self, body: bytes, start: int) -> None:
        self._body = body
        self._at = start

    def take(self, size: object, what: str) -> bytes:
        left = len(self._body) - self._at
        if type(size) is not int or not 0 <= size <= left:
            raise InvalidRequestError(
                f"{what} has the {BINARY_SIZE} {shortened(str(size))}, and {left} bytes of binary data follow"
            )
        taken = self._body[self._at : self._at + size]
        self._at += size
        return taken

    def require_end(self) -> None:
        left = len(self._body) - self._at
        if left:
            raise InvalidRequestError(f"{left} bytes of binary data belong to no input")


def _head_size(header_length: str | None, size: int) -> int:
    if header_length is None:
        return size
    digits = header_length.isascii() and header_length.isdigit() and len(header_length) <= _MOST_DIGITS
    if not digits or not 0 < int(header_length) <= size:
        raise InvalidRequestError(
            f"{HEADER_LENGTH} is {shortened(header_length)}; it must be the bytes of JSON that the request "
            f"begins with, up to its {size}"
        )
    return int(header_length)


def _read_input(described: dict[str, Any], request: ModelInferRequest, binary: _Binary) -> None:
    name = as_text(described.get("name"), "an input's name")
    what = f"input {shortened(name)}"
    tensor = request.inputs.add(name=name)
    tensor.datatype = as_text(described.get("datatype"), f"the datatype of {what}")
    tensor.shape.extend(_shape(described.get("shape"), what))
    read_parameters(described.get("parameters"), tensor.parameters, what)
    size = _taken(tensor.parameters, BINARY_SIZE)
    if size is not None:
        if "data" in described:
            raise InvalidRequestError(f"{what} has data beside {BINARY_SIZE}; send one or the other")
        raw = binary.take(size, what)
    elif SHARED_MEMORY in tensor.parameters:
        raw = b""  # who checks the contract refuses it
    else:
        raw = _raw(described, tensor, what)
    request.raw_input_contents.append(raw)


def _raw(described: dict[str, Any], tensor: ModelInferRequest.InferInputTensor, what: str) -> bytes:
    if "data" not in described:
        raise InvalidRequestError(f"{what} has neither data nor {BINARY_SIZE}")
    try:
        return raw_from_json(described["data"], datatypes.of_protocol(tensor.datatype), tensor.shape)
    except ValueError as error:
        raise InvalidRequestError(f"{what} {error}") from error


def _shape(given: object, what: str) -> list[int]:
    shape = as_list(given, f"the shape of {what}")
    if not all(type(size) is int and size in _INT64 for size in shape):
        raise InvalidRequestError(f"the shape of {what} must be whole numbers")
    return shape


def _read_output(described: dict[str, Any], inference: HttpInference) -> None:
    name = as_text(described.get("name"), "an output's name")
    output = inference.request.outputs.add(name=name)
    read_parameters(described.get("parameters"), output.parameters, f"output {shortened(name)}")
    binary = _taken_flag(output.parameters, BINARY_OUTPUT)
    if binary is not None:
        inference.binary[name] = binary


def _taken_flag(parameters: MutableMapping[str, InferParameter], name: str) -> bool | None:
    value = _taken(parameters, name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequestError(f"the parameter {name!r} must be true or false")
    return value


def _taken(parameters: MutableMapping[str, InferParameter], name: str) -> Any:
    """The value of a parameter that is HTTP's own, taken out of the message."""
    if name not in parameters:
        return None
    value = parameter_json(parameters[name])
    del parameters[name]
    return value
