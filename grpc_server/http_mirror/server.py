"""aiohttp around the endpoints: the REST paths of the protocol, statuses and headers. It knows no tensor."""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler
from google.protobuf.message import Message

from grpc_server.endpoint import Endpoint
from grpc_server.errors import (
    ControlRefusedError,
    DeadlineExceededError,
    InternalFaultError,
    InvalidRequestError,
    NotReadyError,
    NotServedError,
    OverloadedError,
    RequestError,
    UnsupportedError,
)
from grpc_server.handlers import NAME
from grpc_server.http_mirror.documents import as_object, message_json, read_json
from grpc_server.http_mirror.inference import HEADER_LENGTH, read_inference, write_reply
from grpc_server.provenance import Provenance
from protos import grpc_service_pb2 as pb
from registry.errors import UsageError

JSON = "application/json"
BINARY = "application/octet-stream"

_STATUSES: Mapping[type[RequestError], int] = {
    InvalidRequestError: 400,
    NotServedError: 404,
    NotReadyError: 503,
    ControlRefusedError: 503,
    UnsupportedError: 501,
    OverloadedError: 429,
    DeadlineExceededError: 504,
    InternalFaultError: 500,
}
_NOT_READY = 400
"""The protocol wants a status of the four hundreds for what is not live or not ready."""

log = structlog.get_logger(__name__)

_Answer = Callable[[web.Request], Awaitable[web.Response]]


class HttpMirror:
    """The protocol over HTTP on one address.

    Args:
        endpoints: the RPCs, by name, the same as gRPC's.
        max_message_bytes: the largest body taken, after decompression.
        drain_seconds: how long `stop` waits for requests under way.
    """

    def __init__(
        self, endpoints: Iterable[Endpoint[Any]], *, max_message_bytes: int, drain_seconds: float
    ) -> None:
        app = web.Application(client_max_size=max_message_bytes, middlewares=[_in_words])
        routes = _Routes({endpoint.name: endpoint for endpoint in endpoints})
        app.add_routes(routes.all())
        # a caller that is gone is worked for no more
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_reports(),
            handler_cancellation=True,
            shutdown_timeout=drain_seconds,
        )

    async def start(self, host: str, port: int) -> int:
        """Listen, and give the port; 0 lets the system choose one.

        Raises:
            UsageError: the address cannot be listened on.
        """
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise UsageError(
                f"cannot listen on {host}:{port} for HTTP: {error.strerror}; "
                "choose another with --http-port or --host, or go without it with --no-http"
            ) from error
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Take no more requests, and wait for those that are under way."""
        await self._runner.cleanup()


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


class _Routes:
    """The protocol's paths."""

    def __init__(self, endpoints: Mapping[str, Endpoint[Any]]) -> None:
        self._endpoints = endpoints

    def all(self) -> list[web.RouteDef]:
        """Every path with what answers it."""
        return [
            web.get("/v2", self._document("ServerMetadata", _nothing(pb.ServerMetadataRequest))),
            web.get("/v2/health/live", self._flag("ServerLive", _nothing(pb.ServerLiveRequest), "live")),
            web.get("/v2/health/ready", self._flag("ServerReady", _nothing(pb.ServerReadyRequest), "ready")),
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
                web.post(f"{path}/infer", self._infer),
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
    ) -> _Answer:
        """Answers with the reply's message, or one field of it."""
        endpoint = self._endpoints[name]

        async def answer(request: web.Request) -> web.Response:
            document = message_json(await endpoint.ask(await ask(request), _HttpCall({})))
            return _json(document if part is None else document[part])

        return answer

    def _flag(self, name: str, ask: Callable[[web.Request], Awaitable[Message]], flag: str) -> _Answer:
        """Answers with a status that says yes or no, and the same as a document."""
        endpoint = self._endpoints[name]

        async def answer(request: web.Request) -> web.Response:
            document = message_json(await endpoint.ask(await ask(request), _HttpCall({})))
            return _json(document, 200 if document[flag] else _NOT_READY)

        return answer

    async def _infer(self, request: web.Request) -> web.Response:
        model, version = _model_and_version(request)
        call = _HttpCall({})
        inference = read_inference(model, version, await _bytes(request), request.headers.get(HEADER_LENGTH))
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


async def _bytes(request: web.Request) -> bytes:
    """The request's body, unpacked."""
    try:
        return await request.read()
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise InvalidRequestError(f"the body cannot be read: {error}") from error


async def _body(request: web.Request) -> dict[str, Any]:
    """The request's JSON object; an empty body is an empty one."""
    data = await _bytes(request)
    return as_object(read_json(data, "the request"), "the request") if data else {}


@web.middleware
async def _in_words(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers faults as the protocol has them: an object with the text as its `error`."""
    response = await _answered(request, handler)
    response.headers["Server"] = NAME  # and not which library, in which version
    if not request.content.is_eof():
        response.force_close()  # what comes of the body would be taken for the next request
    return response


class _OneLine(logging.Handler):
    """aiohttp's own reports, most of which any caller can provoke: a line of ours, and no stack trace for those."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        provoked = isinstance(error, (web.RequestPayloadError, HttpProcessingError, ConnectionError))
        reason = str(error).replace("\n", " ") if error is not None else record.getMessage()
        if provoked:
            log.debug("a connection brought no HTTP", reason=reason)
        else:
            log.warning(record.getMessage(), exc_info=error)


def _reports() -> logging.Logger:
    logger = logging.Logger(__name__)
    logger.addHandler(_OneLine())
    return logger


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as error:
        response = _json({"error": str(error)}, _status_of(error))
        if isinstance(error, OverloadedError):
            response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
        return response
    except web.HTTPException as error:
        return _json({"error": _words(request, error)}, error.status)
    except Exception:
        fault_id = uuid.uuid4().hex[:12]
        log.exception("a request failed by the server's fault", id=fault_id, path=request.path)
        return _json({"error": str(InternalFaultError(fault_id))}, 500)


def _status_of(error: RequestError) -> int:
    return next(_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES)


def _words(request: web.Request, error: web.HTTPException) -> str:
    match error:
        case web.HTTPNotFound():
            return f"{request.method} {request.path[:200]} is no path of the protocol"
        case web.HTTPMethodNotAllowed():
            return f"{request.path[:200]} takes {', '.join(sorted(error.allowed_methods))}"
        case web.HTTPRequestEntityTooLarge():
            return "the request is larger than this server takes (--max-message-mib)"
        case _:
            return error.text or error.reason


def _json(document: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(document), status=status, content_type=JSON)
