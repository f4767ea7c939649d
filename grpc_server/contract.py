"""A request's inputs held against a model's contract, and read into arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from ferryline.grpc_server import datatypes
from ferryline.grpc_server.classification import wanted_count
from ferryline.grpc_server.datatypes import Array
from ferryline.grpc_server.errors import InvalidRequestError, shortened
from ferryline.grpc_server.tensors import decode_contents, decode_raw
from ferryline.protos.grpc_service_pb2 import ModelInferRequest
from ferryline.registry.documents import TensorSpec

FREE = -1

# callers send a few shapes over and over; what was seen to fit need not be looked at again
KEPT_SHAPES = 64

MOST_EMPTY = 2**20
"""What the free sizes of a tensor without elements may multiply to: no data bounds them."""

# they say where a tensor lies, so that leaving them out would be a wrong answer
_SHARED_MEMORY = frozenset({"shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"})


class InputContract:
    """What one input must be.

    Args:
        spec: the input as the manifest says it. No shape means that the file states none; any is taken then.
    """

    def __init__(self, spec: TensorSpec) -> None:
        self.name = spec.name
        self.datatype = datatypes.of_catalogue(spec.dtype)
        self.shape = spec.shape
        self._fitting: set[tuple[int, ...]] = set()

    def read(self, tensor: ModelInferRequest.InferInputTensor, raw: bytes | None) -> Array:
        """The array that a request's tensor carries.

        Args:
            tensor: the tensor.
            raw: its raw bytes; None where the request carries typed contents.

        Raises:
            InvalidRequestError: it is not what this input must be.
        """
        shape = tuple(tensor.shape)
        if shape not in self._fitting or tensor.datatype != self.datatype.name:
            self._require_fit(tensor, shape)
        if tensor.parameters:
            refuse_shared_memory(tensor.parameters, f"input {self.name!r}")
        if raw is not None and tensor.HasField("contents"):
            raise InvalidRequestError(
                f"input {self.name!r} has contents beside raw_input_contents; "
                "send one or the other for all inputs"
            )
        try:
            if raw is None:
                return decode_contents(tensor.contents, self.datatype, shape)
            return decode_raw(raw, self.datatype, shape)
        except (ValueError, OverflowError) as error:
            raise InvalidRequestError(f"input {self.name!r} {error}") from error

    def _require_fit(self, tensor: ModelInferRequest.InferInputTensor, shape: tuple[int, ...]) -> None:
        if tensor.datatype != self.datatype.name:
            raise InvalidRequestError(
                f"input {self.name!r} is {shortened(tensor.datatype)}, expected {self.datatype.name!r}"
            )
        if not self.takes(shape):
            raise InvalidRequestError(
                f"input {self.name!r} has shape {_listed(shape)}, expected {_listed(self.shape)}"
                + (f" ({FREE} takes any size)" if FREE in self.shape else "")
            )
        if 0 in shape and self._free_sizes(shape) > MOST_EMPTY:
            raise InvalidRequestError(f"input {self.name!r} has no elements and shape {_listed(shape)}")
        if len(self._fitting) < KEPT_SHAPES:
            self._fitting.add(shape)

    def _free_sizes(self, shape: tuple[int, ...]) -> int:
        expected = self.shape or (FREE,) * len(shape)
        return math.prod(
            size for size, wanted in zip(shape, expected, strict=True) if wanted == FREE and size
        )

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of `shape` may come."""
        if not self.shape:
            return all(size >= 0 for size in shape)
        if len(shape) != len(self.shape):
            return False
        for size, expected in zip(shape, self.shape, strict=True):
            if size < 0 or expected not in (FREE, size):
                return False
        return True


def read_feeds(request: ModelInferRequest, contracts: Mapping[str, InputContract]) -> dict[str, Array]:
    """Every input of the model as an array, by name.

    Raises:
        InvalidRequestError: an input is unknown, missing, there twice, or not what it must be.
    """
    tensors, raws = request.inputs, request.raw_input_contents
    if raws and len(raws) != len(tensors):
        raise InvalidRequestError(
            f"there are {len(raws)} raw_input_contents for {len(tensors)} inputs; send one for each, or none"
        )
    feeds: dict[str, Array] = {}
    for index, tensor in enumerate(tensors):
        name = tensor.name
        contract = contracts.get(name)
        if contract is None:
            raise InvalidRequestError(f"no input {shortened(name)}; the model takes {_names(contracts)}")
        if name in feeds:
            raise InvalidRequestError(f"input {name!r} is there twice")
        feeds[name] = contract.read(tensor, raws[index] if raws else None)
    if len(feeds) != len(contracts):
        missing = [name for name in contracts if name not in feeds]
        raise InvalidRequestError(f"missing input {_names(missing)}; the model takes {_names(contracts)}")
    return feeds


def read_requested(request: ModelInferRequest, known: Sequence[str]) -> list[str]:
    """The names of the outputs that a request asks for, in its order.

    Raises:
        InvalidRequestError: one is unknown, there twice, or wanted in a form that this server does not give.
    """
    names: list[str] = []
    for output in request.outputs:
        name = output.name
        if name not in known:
            raise InvalidRequestError(f"no output {shortened(name)}; the model gives {_names(known)}")
        if name in names:
            raise InvalidRequestError(f"output {name!r} is requested twice")
        if output.parameters:
            refuse_shared_memory(output.parameters, f"output {name!r}")
            wanted_count(output.parameters, f"output {name!r}")
        names.append(name)
    return names


def refuse_shared_memory(parameters: Iterable[str], what: str) -> None:
    """Refuse tensors that are not in the message; parameters that are not known mean nothing, as in Triton.

    Raises:
        InvalidRequestError: there is one.
    """
    for name in parameters:
        if name in _SHARED_MEMORY:
            raise InvalidRequestError(
                f"{what} has the parameter {name!r}, and shared memory is not supported here: "
                "send the tensor in the request"
            )


def _names(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"


def _listed(shape: Sequence[int]) -> str:
    shown = list(shape[:8])
    return str(shown) if len(shape) <= len(shown) else f"{shown} and {len(shape) - len(shown)} more"
