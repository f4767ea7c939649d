"""Replies: tensors out, and with every one of them which version it is by and where that comes from."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from grpc_server import datatypes
from grpc_server.datatypes import Array
from grpc_server.tensors import encode_raw
from model_runtime.served import ServedModel
from protos.grpc_service_pb2 import ModelInferRequest, ModelInferResponse

PROVENANCE = "ferry_"
GENERATION = "ferry_generation"
DIGEST = "ferry_digest"
CHANNEL = "ferry_channel"
DATA_AGE = "ferry_data_age_seconds"

# replies of one shape begin with the same bytes; more shapes than these are written out anew each time
KEPT_HEADS = 64


class ReplyWriter:
    """Writes the replies of one served version.

    What does not change between replies of one shape (model, version, provenance, the outputs' descriptions)
    is kept serialised; parsing it is several times as fast as setting every field.
    """

    def __init__(self, served: ServedModel) -> None:
        self._datatypes = {spec.name: datatypes.of_catalogue(spec.dtype) for spec in served.manifest.outputs}
        self._provenance = _provenance(served)
        self._heads: dict[tuple[object, ...], bytes] = {}
        self._newest_event = newest_event_time(served)

    @property
    def outputs(self) -> Sequence[str]:
        """The names of all outputs."""
        return tuple(self._datatypes)

    def write(self, request: ModelInferRequest, results: Mapping[str, Array]) -> ModelInferResponse:
        """The reply to `request` with `results` as its outputs, in their order."""
        reply = ModelInferResponse.FromString(self._head(results))
        contents = reply.raw_output_contents
        for name, array in results.items():
            contents.append(encode_raw(array, self._datatypes[name]))
        if request.id:
            reply.id = request.id
        if request.parameters:
            _give_back(request, reply)
        if self._newest_event is not None:
            reply.parameters[DATA_AGE].double_param = round(time.time() - self._newest_event, 3)
        return reply

    def _head(self, results: Mapping[str, Array]) -> bytes:
        key = (*results, *(array.shape for array in results.values()))
        head = self._heads.get(key)
        if head is None:
            head = self._describe(results)
            if len(self._heads) < KEPT_HEADS:
                self._heads[key] = head
        return head

    def _describe(self, results: Mapping[str, Array]) -> bytes:
        reply = ModelInferResponse.FromString(self._provenance)
        for name, array in results.items():
            reply.outputs.add(name=name, datatype=self._datatypes[name].name, shape=array.shape)
        return reply.SerializeToString()


def newest_event_time(served: ServedModel) -> float | None:
    """The event time of the newest record that the version learnt from, as a Unix time; None if not known."""
    lineage = served.manifest.lineage
    newest = lineage.newest_event_time if lineage is not None else None
    return None if newest is None else newest.timestamp()


def _provenance(served: ServedModel) -> bytes:
    reply = ModelInferResponse(model_name=served.name, model_version=str(served.version))
    reply.parameters[GENERATION].int64_param = served.generation
    reply.parameters[DIGEST].string_param = served.digest
    reply.parameters[CHANNEL].string_param = served.channel
    return reply.SerializeToString()


def _give_back(request: ModelInferRequest, reply: ModelInferResponse) -> None:
    for name, value in request.parameters.items():
        if not name.startswith(PROVENANCE):  # no caller can say where an answer comes from
            reply.parameters[name].CopyFrom(value)
