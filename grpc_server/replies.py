"""Replies: tensors out, and with every one of them which version it is by and where that comes from."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence

from ferryline.grpc_server import datatypes
from ferryline.grpc_server.classification import highest, wanted_count
from ferryline.grpc_server.contract import FREE
from ferryline.grpc_server.datatypes import Array
from ferryline.grpc_server.errors import InvalidRequestError
from ferryline.grpc_server.provenance import CHANNEL, DATA_AGE, DIGEST, GENERATION, PREFIX, newest_event_time
from ferryline.grpc_server.tensors import encode_raw
from ferryline.model_runtime.served import ServedModel
from ferryline.protos.grpc_service_pb2 import ModelInferRequest, ModelInferResponse

_RESERVED = (PREFIX, "triton_")
_TEXT = datatypes.of_catalogue("string")

_DOUBLE = struct.Struct("<d")


def _varint(number: int) -> bytes:
    """A length as protobuf writes it: seven bits a byte, the lowest first."""
    if number < 0x80:  # noqa: PLR2004 - what seven bits hold
        return _ONE_BYTE[number]
    parts = bytearray()
    while number >= 0x80:  # noqa: PLR2004 - likewise
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def length_delimited(tag: bytes, data: bytes) -> bytes:
    """A field of bytes, text or a message as protobuf writes it."""
    return b"".join((tag, _varint(len(data)), data))


_ONE_BYTE = [bytes((number,)) for number in range(0x80)]
_RAW_CONTENTS = bytes((ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER << 3 | 2,))


def _data_age_parameter() -> bytes:
    """A reply with only the parameter `DATA_AGE`, up to its eight bytes."""
    reply = ModelInferResponse()
    reply.parameters[DATA_AGE].double_param = 1.0
    return reply.SerializeToString()[: -_DOUBLE.size]


_DATA_AGE_PARAMETER = _data_age_parameter()

# replies of one shape begin with the same bytes; more shapes than these are written out anew each time
KEPT_HEADS = 64


class ReplyWriter:
    """Writes the replies of one served version.

    What does not change between replies of one shape (model, version, provenance, the outputs' descriptions)
    is kept serialised; parsing it is several times as fast as setting every field.
    """

    def __init__(self, served: ServedModel) -> None:
        self._specs = {spec.name: spec for spec in served.manifest.outputs}
        self._labels = served.manifest.classes or ()
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
        reply = ModelInferResponse.FromString(self.plain(results))
        if request.outputs:
            self._classify(request, results, reply)
        if request.id:
            reply.id = request.id
        if request.parameters:
            _give_back(request, reply)
        return reply

    def _classify(
        self, request: ModelInferRequest, results: Mapping[str, Array], reply: ModelInferResponse
    ) -> None:
        for index, output in enumerate(request.outputs):
            count = wanted_count(output.parameters, f"output {output.name!r}")
            if not count:
                continue
            spec, written = self._specs[output.name], reply.outputs[index]
            if spec.dtype == "string":
                raise InvalidRequestError(f"output {spec.name!r} is BYTES, which has no highest elements")
            found = highest(
                results[output.name],
                count,
                by_row=spec.shape[:1] == (FREE,),
                labels=() if spec.role == "label" else self._labels,
            )
            written.datatype, written.shape[:] = _TEXT.name, found.shape
            reply.raw_output_contents[index] = encode_raw(found, _TEXT)

    def plain(self, results: Mapping[str, Array]) -> bytes:
        """The serialised reply to a request without id and parameters.

        Protobuf lets a message be written in parts: the bytes of two parts behind each other are the message.
        """
        parts = [self._head(results)]
        for name, array in results.items():
            raw = encode_raw(array, self._datatypes[name])
            parts += (_RAW_CONTENTS, _varint(len(raw)), raw)
        if self._newest_event is not None:
            parts += (_DATA_AGE_PARAMETER, _DOUBLE.pack(round(time.time() - self._newest_event, 3)))
        return b"".join(parts)

    def _head(self, results: Mapping[str, Array]) -> bytes:
        key = (*results, *[array.shape for array in results.values()])
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


def _provenance(served: ServedModel) -> bytes:
    reply = ModelInferResponse(model_name=served.name, model_version=str(served.version))
    reply.parameters[GENERATION].int64_param = served.generation
    reply.parameters[DIGEST].string_param = served.digest
    reply.parameters[CHANNEL].string_param = served.channel
    return reply.SerializeToString()


def _give_back(request: ModelInferRequest, reply: ModelInferResponse) -> None:
    for name, value in request.parameters.items():
        if not name.startswith(_RESERVED):  # no caller can say where an answer comes from
            reply.parameters[name].CopyFrom(value)
