"""A version of a model as it can be asked: all that a request needs, worked out before the first one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ferryline.grpc_server.contract import FREE, InputContract
from ferryline.grpc_server.counters import VersionCounters
from ferryline.grpc_server.datatypes import Array
from ferryline.grpc_server.execution.costs import RunCosts
from ferryline.grpc_server.execution.probing import probe
from ferryline.grpc_server.provenance import Provenance
from ferryline.grpc_server.replies import ReplyWriter
from ferryline.model_runtime.golden import zeros
from ferryline.model_runtime.served import ServedModel
from ferryline.protos.grpc_service_pb2 import ModelInferRequest


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
        before: the same session under another generation, which knows already what its runs cost.
    """

    __slots__ = (
        "_batched", "_batched_outputs", "costs", "counters", "even_rows", "inputs", "joinable",
        "joining_proven", "name", "outputs", "plain", "provenance", "served", "session", "writer",
    )  # fmt: skip

    def __init__(
        self, served: ServedModel, counters: VersionCounters, before: Offering | None = None
    ) -> None:
        self.served = served
        self.name = served.name
        self.session = served.session
        self.counters = counters
        self.inputs = {spec.name: InputContract(spec) for spec in served.manifest.inputs}
        self.writer = ReplyWriter(served)
        self.provenance = Provenance(served)
        self.outputs = tuple(self.writer.outputs)
        self.plain: dict[bytes, PlainInput] = {}
        first = next(iter(self.inputs.values()), None)
        self._batched = first.name if first is not None and first.shape[:1] == (FREE,) else None
        contracts = self.inputs.values()
        self.even_rows = all(each.shape and FREE not in each.shape[1:] for each in contracts)
        # whether rows of several requests may go into one run, and whether a run has shown that it is right
        self.joinable = bool(contracts) and all(each.shape[:1] == (FREE,) for each in contracts)
        self.joining_proven = False
        self._batched_outputs = {spec.name for spec in served.manifest.outputs if spec.shape[:1] == (FREE,)}
        self.costs: RunCosts = RunCosts() if before is None else before.costs
        if before is None:
            probe(self.session, served.manifest, self.costs, self.weight(zeros(served.manifest), 1))
        else:
            self.joinable, self.joining_proven = before.joinable, before.joining_proven

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

    def weight(self, feeds: dict[str, Array], rows: int) -> int:
        """What the cost of a run goes by: its rows, or its elements where rows have no fixed length."""
        return rows if self.even_rows else sum(array.size for array in feeds.values())

    def joins(self, outputs: Sequence[str]) -> bool:
        """Whether requests for these outputs may run together: the batch comes first in all tensors."""
        return self.joinable and self._batched_outputs.issuperset(outputs)
