"""A version of a model as it can be asked: all that a request needs, worked out before the first one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from grpc_server.contract import FREE, InputContract
from grpc_server.counters import VersionCounters
from grpc_server.datatypes import Array
from grpc_server.provenance import Provenance
from grpc_server.replies import ReplyWriter
from model_runtime.served import ServedModel
from protos.grpc_service_pb2 import ModelInferRequest


@dataclass(frozen=True, slots=True)
class PlainInput:
    """How to read an input from its bytes alone."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Offering:
    """One served version. A request takes it once and keeps it until its answer is out.

    Args:
        served: the version, under one generation of its channel.
        counters: where its requests are counted.
    """

    __slots__ = (
        "_batched", "counters", "inputs", "outputs", "plain", "provenance", "served", "session", "writer",
    )  # fmt: skip

    def __init__(self, served: ServedModel, counters: VersionCounters) -> None:
        self.served = served
        self.session = served.session
        self.counters = counters
        self.inputs = {spec.name: InputContract(spec) for spec in served.manifest.inputs}
        self.writer = ReplyWriter(served)
        self.provenance = Provenance(served)
        self.outputs = tuple(self.writer.outputs)
        self.plain: dict[bytes, PlainInput] = {}
        first = next(iter(self.inputs.values()), None)
        self._batched = first.name if first is not None and first.shape[:1] == (FREE,) else None

    def plain_input(self, tensor: ModelInferRequest.InferInputTensor) -> PlainInput | None:
        """How to read the data of requests that describe their one input as `tensor` does.

        None where it is not this model's one input, its data need more than being read, or each request must
        first be drawn for the version or its canary.
        """
        if self.served.canary is not None:
            return None
        contract, shape = self.inputs.get(tensor.name), tuple(tensor.shape)
        if contract is None or len(self.inputs) != 1 or contract.datatype.name != tensor.datatype:
            return None
        if contract.datatype.is_bytes or contract.datatype.dtype.kind == "b" or not contract.takes(shape):
            return None
        return PlainInput(tensor.name, contract.datatype.dtype, shape)

    def rows(self, feeds: dict[str, Array]) -> int:
        """How many inferences one request means: the size of the free first dimension, else one."""
        return 1 if self._batched is None else feeds[self._batched].shape[0]
