"""A version of a model as it can be asked: all that a request needs, worked out before the first one."""

from __future__ import annotations

from grpc_server.contract import FREE, InputContract
from grpc_server.counters import VersionCounters
from grpc_server.datatypes import Array
from grpc_server.replies import ReplyWriter
from model_runtime.served import ServedModel


class Offering:
    """One served version. A request takes it once and keeps it until its answer is out.

    Args:
        served: the version, under one generation of its channel.
        counters: where its requests are counted.
    """

    __slots__ = ("_batched", "counters", "inputs", "outputs", "served", "session", "writer")

    def __init__(self, served: ServedModel, counters: VersionCounters) -> None:
        self.served = served
        self.session = served.session
        self.counters = counters
        self.inputs = {spec.name: InputContract(spec) for spec in served.manifest.inputs}
        self.writer = ReplyWriter(served)
        self.outputs = tuple(self.writer.outputs)
        first = next(iter(self.inputs.values()), None)
        self._batched = first.name if first is not None and first.shape[:1] == (FREE,) else None

    def rows(self, feeds: dict[str, Array]) -> int:
        """How many inferences one request means: the size of the free first dimension, else one."""
        return 1 if self._batched is None else feeds[self._batched].shape[0]
