"""What a model takes, and arrays made to fit it before anything is sent. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ferryline.grpc_server import datatypes
from ferryline.grpc_server.client.errors import InputError
from ferryline.grpc_server.datatypes import Array, Datatype
from ferryline.protos.grpc_service_pb2 import ModelMetadataResponse

FREE = -1

Inputs = npt.ArrayLike | Mapping[str, npt.ArrayLike]
"""An array for each input by name; or the array alone, where the model has one input."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output.

    Args:
        name: as the model calls it.
        datatype: as the protocol writes it, such as `FP32`.
        shape: -1 where a dimension may have any size; empty where the model does not say.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.datatype} {list(self.shape)}"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model takes and gives.

    Args:
        name: the model's name.
        versions: those that can be asked.
        platform: what runs it.
        inputs: by name.
        outputs: likewise.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]

    @classmethod
    def of(cls, reply: ModelMetadataResponse) -> ModelInfo:
        """As a server says it."""
        return cls(
            name=reply.name,
            versions=tuple(reply.versions),
            platform=reply.platform,
            inputs={tensor.name: _info(tensor) for tensor in reply.inputs},
            outputs={tensor.name: _info(tensor) for tensor in reply.outputs},
        )


def fitted(info: ModelInfo, inputs: Inputs) -> dict[str, Array]:
    """An array of the right dtype and shape for each input, in the model's order.

    Numbers are converted where nothing of them is lost but digits: whole numbers and float64 to FP32, int64
    to INT32 while they are in its range. Never silently: fractions to whole numbers, text to numbers.

    Raises:
        InputError: something does not fit, in words that say what the model takes.
    """
    named = inputs if isinstance(inputs, Mapping) else _alone(info, inputs)
    unknown = [name for name in named if name not in info.inputs]
    missing = [name for name in info.inputs if name not in named]
    if unknown or missing:
        raise InputError(
            (f"no input {unknown[0]!r}" if unknown else f"input {missing[0]!r} is missing")
            + f"; model {info.name!r} takes {_listed(info.inputs)}"
        )
    return {name: fit(tensor, named[name]) for name, tensor in info.inputs.items()}


def as_arrays(inputs: Inputs) -> dict[str, Array]:
    """The inputs as they are, for a client that does not ask what a model takes.

    Raises:
        InputError: they are not by name, or no arrays.
    """
    if not isinstance(inputs, Mapping):
        raise InputError("with check_inputs=False the inputs go by name: {'name': array}")
    return {name: _array(name, value) for name, value in inputs.items()}


def fit(tensor: TensorInfo, value: npt.ArrayLike) -> Array:
    """`value` as an array that one input takes.

    Raises:
        InputError: it does not fit.
    """
    array = _array(tensor.name, value)
    try:
        datatype = datatypes.of_protocol(tensor.datatype)
    except ValueError:
        raise InputError(f"input {tensor.name!r} is {tensor.datatype}, which numpy does not have") from None
    array = _texts(tensor, array) if datatype.is_bytes else _numbers(tensor, datatype, array)
    if tensor.shape and not _fits(array.shape, tensor.shape):
        raise InputError(_misshapen(tensor, array.shape))
    return array


def _info(tensor: ModelMetadataResponse.TensorMetadata) -> TensorInfo:
    return TensorInfo(tensor.name, tensor.datatype, tuple(tensor.shape))


def _alone(info: ModelInfo, value: npt.ArrayLike) -> Mapping[str, npt.ArrayLike]:
    if len(info.inputs) != 1:
        raise InputError(
            f"model {info.name!r} has {len(info.inputs)} inputs, so give them by name: {_listed(info.inputs)}"
        )
    return dict.fromkeys(info.inputs, value)


def _array(name: str, value: npt.ArrayLike) -> Array:
    try:
        return np.asarray(value)
    except ValueError as error:  # rows of different lengths
        raise InputError(f"input {name!r} is no array: {error}") from error


def _texts(tensor: TensorInfo, array: Array) -> Array:
    for element in array.ravel().tolist():
        if not isinstance(element, str | bytes):
            raise InputError(f"input {tensor.name!r} takes text, and {element!r} is none")
    return array.astype(object)


def _numbers(tensor: TensorInfo, datatype: Datatype, array: Array) -> Array:
    wanted = datatype.dtype
    if array.dtype == wanted:
        return array
    if array.size and not _convertible(array.dtype, wanted):
        raise InputError(f"input {tensor.name!r} takes {tensor.datatype}, and the array is {array.dtype}")
    if wanted.kind in "iu" and array.size:
        limits = np.iinfo(wanted)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise InputError(
                f"input {tensor.name!r} has a value beyond {tensor.datatype}, "
                f"which goes from {limits.min} to {limits.max}"
            )
    try:
        with np.errstate(over="raise"):
            return array.astype(wanted)
    except FloatingPointError:
        raise InputError(f"input {tensor.name!r} has a value too large for {tensor.datatype}") from None


def _convertible(given: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Whether numbers keep their meaning; whether they are in range, only the values can say."""
    kinds = {"b": "b", "i": "biu", "u": "biu", "f": "biuf"}
    return given.kind in kinds[wanted.kind]


def _fits(shape: Sequence[int], expected: Sequence[int]) -> bool:
    return len(shape) == len(expected) and all(
        wanted in (FREE, size) for size, wanted in zip(shape, expected, strict=True)
    )


def _misshapen(tensor: TensorInfo, shape: tuple[int, ...]) -> str:
    text = f"input {tensor.name!r} takes {list(tensor.shape)}, and the array is {list(shape)}"
    if tensor.shape[0] == FREE and _fits(shape, tensor.shape[1:]):
        return f"{text}; a single row goes as array[np.newaxis]"
    return f"{text} ({FREE} takes any size)" if FREE in tensor.shape else text


def _listed(tensors: Mapping[str, TensorInfo]) -> str:
    return ", ".join(f"{name!r} ({tensor})" for name, tensor in tensors.items()) or "no inputs"
