"""The protocol's paths, each with the endpoint that answers it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from google.protobuf.message import Message

from ferryline.grpc_server.endpoint import Endpoint
from ferryline.grpc_server.errors import InvalidRequestError
from ferryline.grpc_server.http_mirror.admission import REQUEST_ID, Answer, HttpAdmission
from ferryline.grpc_server.http_mirror.documents import as_object, message_json, read_json
from ferryline.grpc_server.http_mirror.faults import JSON, json_response
from ferryline.grpc_server.http_mirror.inference import (
    HEADER_LENGTH,
    HttpInference,
    read_inference,
    write_reply,
)
from ferryline.grpc_server.inference import AT_ONCE_BYTES
from ferryline.grpc_server.provenance import Provenance
from ferryline.protos import grpc_service_pb2 as pb

BINARY = "application/octet-stream"

BODY_SECONDS = 60.0
"""How long a body may take to arrive: those that come drop by drop would fill the memory."""

_NOT_READY = 400
"""The protocol wants a status of the four hundreds for what is not live or not ready."""

Detail = Callable[[], Mapping[str, Any]]
"""Gives what there is to say about readiness, beyond yes and no."""


@dataclass(slots=True)
class _HttpCall:
    """A call over HTTP, and the headers of its answer."""

    headers: dict[str, str]

    def seconds_left(self) -> float | None:
        """HTTP has no deadlines; a caller that leaves cancels."""
        return None

    def answered_by(self, provenance: Provenance) -> None:
        """Say it in headers."""
        self.headers.update(provenance.metadata())


class Routes:
    """The protocol's paths.

    Args:
        endpoints: the RPCs, by name.
        admission: who may call them, and who is told.
        readiness: what those who may know are told about it.
    """

    def __init__(
        self,
        endpoints: Mapping[str, Endpoint[Any]],
        admission: HttpAdmission | None = None,
        readiness: Detail = dict,
    ) -> None:
        self._endpoints = endpoints
        self._admission = admission or HttpAdmission()
        self._readiness = readiness

    def all(self) -> list[web.RouteDef]:
        """Every path with what answers it."""
        return [
            web.get("/v2", self._document("ServerMetadata", _nothing(pb.ServerMetadataRequest))),
            web.get("/v2/health/live", self._flag("ServerLive", _nothing(pb.ServerLiveRequest), "live")),
            web.get("/v2/health/ready", self._admission.around("ServerReady", self._ready)),
            web.get("/v2/models/stats", self._document("ModelStatistics", _named(pb.ModelStatisticsRequest))),
            *self._of_models(),
            *self._of_the_repository(),
            *self._unserved(),
        ]

    def _of_models(self) -> list[web.RouteDef]:
        return [
            route
            for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
            for route in (
                web.get(path, self._document("ModelMetadata", _named(pb.ModelMetadataRequest))),
                web.get(f"{path}/ready", self._flag("ModelReady", _named(pb.ModelReadyRequest), "ready")),
                web.get(
                    f"{path}/config", self._document("ModelConfig", _named(pb.ModelConfigRequest), "config")
                ),
                web.get(
                    f"{path}/stats", self._document("ModelStatistics", _named(pb.ModelStatisticsRequest))
                ),
                web.post(f"{path}/infer", self._admission.around("ModelInfer", self._infer)),
            )
        ]

    def _of_the_repository(self) -> list[web.RouteDef]:
        model = "/v2/repository/models/{model}"
        load = self._document("RepositoryModelLoad", _controlled(pb.RepositoryModelLoadRequest))
        unload = self._document("RepositoryModelUnload", _controlled(pb.RepositoryModelUnloadRequest))
        return [
            web.post("/v2/repository/index", self._document("RepositoryIndex", _index, "models")),
            web.post(f"{model}/load", load),
            web.post(f"{model}/unload", unload),
        ]

    def _unserved(self) -> list[web.RouteDef]:
        traces = self._document("TraceSetting", _nothing(pb.TraceSettingRequest))
        logs = self._document("LogSettings", _nothing(pb.LogSettingsRequest))
        memory = self._document("SystemSharedMemoryStatus", _nothing(pb.ServerLiveRequest))
        return [
            web.route("*", "/v2/trace/setting", traces),
            web.route("*", "/v2/models/{model}/trace/setting", traces),
            web.route("*", "/v2/logging", logs),
            web.route("*", "/v2/{kind:(?:system|cuda)sharedmemory}/{rest:.*}", memory),
        ]

    def _document(
        self, name: str, ask: Callable[[web.Request], Awaitable[Message]], part: str | None = None
    ) -> Answer:
        """Answers with the reply's message, or one field of it."""
        endpoint = self._endpoints[name]

        async def answer(request: web.Request) -> web.Response:
            document = message_json(await endpoint.ask(await ask(request), _HttpCall({})))
            return json_response(document if part is None else document[part])

        return self._admission.around(name, answer)

    def _flag(self, name: str, ask: Callable[[web.Request], Awaitable[Message]], flag: str) -> Answer:
        """Answers with a status that says yes or no, and the same as a document."""
        endpoint = self._endpoints[name]

        async def answer(request: web.Request) -> web.Response:
            document = message_json(await endpoint.ask(await ask(request), _HttpCall({})))
            return json_response(document, 200 if document[flag] else _NOT_READY)

        return self._admission.around(name, answer)

    async def _ready(self, request: web.Request) -> web.Response:
        document = message_json(await self._endpoints["ServerReady"].ask(pb.ServerReadyRequest()))
        detail = self._readiness() if self._admission.knows(request) else {}
        return json_response({**document, **detail}, 200 if document["ready"] else _NOT_READY)

    async def _infer(self, request: web.Request) -> web.Response:
        model, version = _model_and_version(request)
        call = _HttpCall({})
        inference = await _inference(
            model, version, await _bytes(request), request.headers.get(HEADER_LENGTH)
        )
        request[REQUEST_ID] = inference.request.id
        reply = cast(pb.ModelInferResponse, await self._endpoints["ModelInfer"].ask(inference.request, call))
        body, head_length = write_reply(reply, inference)
        if head_length is not None:
            call.headers[HEADER_LENGTH] = str(head_length)
        response = web.Response(
            body=body, headers=call.headers, content_type=JSON if head_length is None else BINARY
        )
        if "Accept-Encoding" in request.headers:
            response.enable_compression()
        return response


def _model_and_version(request: web.Request) -> tuple[str, str]:
    return request.match_info["model"], request.match_info.get("version", "")


def _nothing(kind: type[Message]) -> Callable[[web.Request], Awaitable[Message]]:
    async def ask(_request: web.Request) -> Message:
        return kind()

    return ask


def _named(kind: type[Message]) -> Callable[[web.Request], Awaitable[Message]]:
    async def ask(request: web.Request) -> Message:
        found = request.match_info
        return kind(name=found.get("model", ""), version=found.get("version", ""))

    return ask


async def _index(request: web.Request) -> Message:
    ready = (await _body(request)).get("ready", False)
    if not isinstance(ready, bool):
        raise InvalidRequestError("ready must be true or false")
    return pb.RepositoryIndexRequest(ready=ready)


def _controlled(
    kind: type[pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest],
) -> Callable[[web.Request], Awaitable[Message]]:
    async def ask(request: web.Request) -> Message:
        asked = kind(model_name=request.match_info["model"])
        for name in as_object((await _body(request)).get("parameters", {}), "parameters"):
            asked.parameters[name].SetInParent()  # none has a meaning here, so that their values have none
        return asked

    return ask


async def _inference(model: str, version: str, data: bytes, header_length: str | None) -> HttpInference:
    """The request in a body; a long one is read on a thread, since JSON is read element by element."""
    if len(data) <= AT_ONCE_BYTES:
        return read_inference(model, version, data, header_length)
    return await asyncio.to_thread(read_inference, model, version, data, header_length)


async def _bytes(request: web.Request) -> bytes:
    """The request's body, unpacked."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(
            text=f"the body did not arrive within {BODY_SECONDS:g} s; send it faster or in smaller requests"
        ) from None
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise InvalidRequestError(f"the body cannot be read: {error}") from error


async def _body(request: web.Request) -> dict[str, Any]:
    """The request's JSON object; an empty body is an empty one."""
    data = await _bytes(request)
    return as_object(read_json(data, "the request"), "the request") if data else {}
