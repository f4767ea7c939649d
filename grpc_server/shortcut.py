"""The hot path: plain requests answered from bytes to bytes, without building messages in between.

A caller that asks one model again and again sends the same bytes each time, up to the tensor's data, which
protobuf writes last. When such a request has gone the long way through the handlers and was answered, its
head is kept with what the handlers found; a request with the same head and length differs in nothing but the
data and takes the short way. Whatever is not plain or was not seen yet goes the long way: there is one place
that checks requests.

A request is plain when it names a model and no version, has one raw input of fixed element size, and has
neither an id nor parameters nor requested outputs.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TypeVar
from weakref import ReferenceType, ref

import numpy as np

from ferryline.grpc_server.answering import answer
from ferryline.grpc_server.call import UNBOUNDED, Call
from ferryline.grpc_server.execution.executor import Executor
from ferryline.grpc_server.models import FollowedModel, Models
from ferryline.protos.grpc_service_pb2 import ModelInferRequest

KEPT_HEADS = 512
LONGEST_HEAD = 1024
"""Bytes; callers choose what a head holds, in fields written twice or unknown ones, and nobody needs more."""

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class _Head:
    """The bytes before the data, and the model they name, which may be unloaded meanwhile."""

    data: bytes
    model: ReferenceType[FollowedModel]


class PlainShortcut:
    """Remembers heads of plain requests and answers those that have one of them."""

    def __init__(self, models: Models, executor: Executor) -> None:
        self._models = models
        self._executor = executor
        self._by_length: dict[int, _Head] = {}

    def answer(self, data: bytes, call: Call = UNBOUNDED) -> bytes | Awaitable[bytes] | None:
        """The serialised reply, or what to await for it; None where the request must go the long way.

        Raises:
            RequestError: there is no room or no time for it, or the model cannot be run on it. What is
                awaited raises the same.
        """
        began = perf_counter_ns()
        head = self._by_length.get(len(data))
        if head is None or not data.startswith(head.data):
            return None
        model = head.model()
        offering = None if model is None else model.current
        # what was learnt holds for one offering, and goes with it
        plain = offering.plain.get(head.data) if offering is not None else None
        if model is None or offering is None or plain is None:
            return None
        # sliced, not viewed: the data must begin where the processor likes numbers to begin
        array = np.frombuffer(data[len(head.data) :], plain.dtype).reshape(plain.shape)
        feeds = {plain.name: array}
        shadow = model.shadow
        sample = None if shadow is None else shadow.sample(offering, feeds)
        write = offering.writer.plain
        return answer(self._executor, offering, feeds, offering.outputs, write, call, began, sample)

    def learn(self, data: bytes, request: ModelInferRequest) -> None:
        """Keep the head of an answered request, if it is plain."""
        if len(request.inputs) != 1 or len(request.raw_input_contents) != 1 or not _is_bare(request):
            return
        model = self._models.get(request.model_name)
        # another offering than the one that answered may be the present one by now
        offering, tensor = model.current, request.inputs[0]
        plain = None if offering is None else offering.plain_input(tensor)
        head = _head(data, request)
        if offering is None or plain is None or head is None:
            return
        _keep(offering.plain, head, plain)
        _keep(self._by_length, len(data), _Head(head, ref(model)))


def _keep(kept: dict[_K, _V], key: _K, value: _V) -> None:
    if len(kept) >= KEPT_HEADS:
        kept.clear()
    kept[key] = value


def _is_bare(request: ModelInferRequest) -> bool:
    tensor = request.inputs[0]
    extras = (request.model_version, request.id, request.parameters, request.outputs, tensor.parameters)
    return not any(extras)


def _head(data: bytes, request: ModelInferRequest) -> bytes | None:
    """What precedes the tensor's data, if the data come last; None otherwise."""
    raw = request.raw_input_contents[0]
    last = ModelInferRequest(raw_input_contents=[raw]).SerializeToString()
    if not raw or not data.endswith(last) or len(data) - len(raw) > LONGEST_HEAD:
        return None
    rest = ModelInferRequest.FromString(data[: len(data) - len(last)])
    rest.raw_input_contents.append(raw)
    return data[: len(data) - len(raw)] if rest == request else None
