"""A client of the Open Inference Protocol: numpy arrays in and out, over one channel that stays open.

    with Client("127.0.0.1:8001") as client:
        answer = client.infer("digits", rows)
        answer["label"], answer.model.version, answer.model.trained_until

It needs numpy, grpcio and protobuf, and imports nothing of the server.

    blocking, asynchronous  who does the steps: over grpc, over grpc.aio
    steps                   what is to be done: questions, retries, what is kept of models; without I/O
    contract, messages      arrays made to fit a model; arrays to requests, replies to answers
    options, errors         the way to a server, and what can go wrong on it
"""

from ferryline.registry.extras import Extra, require_extra

try:
    from ferryline.grpc_server.client.asynchronous import AsyncClient, AsyncStream
    from ferryline.grpc_server.client.blocking import Client, Stream
    from ferryline.grpc_server.client.contract import Inputs, ModelInfo, TensorInfo
    from ferryline.grpc_server.client.errors import (
        AccessError,
        ClientError,
        InferenceError,
        InputError,
        ModelNotFoundError,
        OverloadedError,
        RequestRefusedError,
        TimedOutError,
        UnavailableError,
        UnreadableAnswerError,
    )
    from ferryline.grpc_server.client.messages import Answer, AnsweringModel
    from ferryline.grpc_server.client.options import NO_RETRY, Retry, Tls
except ModuleNotFoundError:
    require_extra(Extra.CLIENT, __name__)
    raise

__all__ = [
    "NO_RETRY",
    "AccessError",
    "Answer",
    "AnsweringModel",
    "AsyncClient",
    "AsyncStream",
    "Client",
    "ClientError",
    "InferenceError",
    "InputError",
    "Inputs",
    "ModelInfo",
    "ModelNotFoundError",
    "OverloadedError",
    "RequestRefusedError",
    "Retry",
    "Stream",
    "TensorInfo",
    "TimedOutError",
    "Tls",
    "UnavailableError",
    "UnreadableAnswerError",
]
