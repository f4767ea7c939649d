"""A small client: numpy arrays in and out, over one channel that stays open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import grpc
import numpy as np

from grpc_server import datatypes
from grpc_server.datatypes import Array
from grpc_server.endpoint import SERVICE
from grpc_server.provenance import DATA_AGE, DIGEST, GENERATION
from grpc_server.tensors import decode_raw, encode_raw
from protos.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from registry.errors import FerryError

LARGEST_MESSAGE = 2**31 - 1


class InferenceError(FerryError):
    """The server gave no answer.

    Args:
        code: gRPC's name of the status, such as `NOT_FOUND`.
        text: what the server said.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


@dataclass(frozen=True, slots=True)
class InferResult:
    """What a model answered, and which version of it did.

    Args:
        outputs: an array for each output, by name; BYTES come as text.
        version: the version that answered.
        generation: the channel's generation under which it serves; None from a server that does not say.
        digest: the digest of its file; None likewise.
        data_age_seconds: how old the newest record was that it learnt from; None where that is not known.
    """

    outputs: Mapping[str, Array]
    version: str
    generation: int | None
    digest: str | None
    data_age_seconds: float | None


class InferenceClient:
    """Asks a server of the Open Inference Protocol; safe to use from many threads.

    Args:
        address: host and port.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, address: str, *, timeout: float = 10.0) -> None:
        self._timeout = timeout
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_send_message_length", LARGEST_MESSAGE),
                ("grpc.max_receive_message_length", LARGEST_MESSAGE),
            ],
        )
        self._infer = self._channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=ModelInferRequest.SerializeToString,
            response_deserializer=ModelInferResponse.FromString,
        )

    def infer(self, model: str, inputs: Mapping[str, Array], *, version: str = "") -> InferResult:
        """Run `model` on `inputs`, one array for each of its inputs.

        Args:
            model: the model's name.
            inputs: the arrays, whose dtypes must be the model's.
            version: a version that must answer; empty for whichever serves.

        Raises:
            InferenceError: there was no answer.
            ValueError: an array is of a dtype that the protocol does not carry.
        """
        request = ModelInferRequest(model_name=model, model_version=version)
        for name, array in inputs.items():
            datatype = datatypes.of_array(np.asarray(array))
            request.inputs.add(name=name, datatype=datatype.name, shape=np.shape(array))
            request.raw_input_contents.append(encode_raw(np.asarray(array), datatype))
        try:
            return _result(self._infer(request, timeout=self._timeout))
        except grpc.RpcError as error:
            raise InferenceError(error.code().name, error.details() or "") from error

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _result(reply: ModelInferResponse) -> InferResult:
    outputs = {
        tensor.name: decode_raw(raw, datatypes.of_protocol(tensor.datatype), tuple(tensor.shape))
        for tensor, raw in zip(reply.outputs, reply.raw_output_contents, strict=True)
    }
    said = reply.parameters
    return InferResult(
        outputs=outputs,
        version=reply.model_version,
        generation=said[GENERATION].int64_param if GENERATION in said else None,
        digest=said[DIGEST].string_param if DIGEST in said else None,
        data_age_seconds=said[DATA_AGE].double_param if DATA_AGE in said else None,
    )
