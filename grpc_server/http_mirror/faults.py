"""What goes wrong over HTTP: a status, and an object with the text as its `error`."""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Mapping
from typing import Any

import orjson
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from ferryline.grpc_server.errors import (
    ControlRefusedError,
    DeadlineExceededError,
    ForbiddenError,
    InternalFaultError,
    InvalidRequestError,
    NotReadyError,
    NotServedError,
    OverloadedError,
    RequestError,
    TooLargeError,
    UnauthenticatedError,
    UnsupportedError,
)
from ferryline.grpc_server.handlers import NAME

JSON = "application/json"

_STATUSES: Mapping[type[RequestError], int] = {
    InvalidRequestError: 400,
    UnauthenticatedError: 401,
    ForbiddenError: 403,
    NotServedError: 404,
    NotReadyError: 503,
    ControlRefusedError: 503,
    UnsupportedError: 501,
    OverloadedError: 503,
    TooLargeError: 413,
    DeadlineExceededError: 504,
    InternalFaultError: 500,
}

log = structlog.get_logger(__name__)


@web.middleware
async def in_words(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers faults as the protocol has them: an object with the text as its `error`."""
    response = await _answered(request, handler)
    response.headers["Server"] = NAME  # and not which library, in which version
    if not request.content.is_eof():
        response.force_close()  # what comes of the body would be taken for the next request
    return response


class _OneLine(logging.Handler):
    """aiohttp's own reports; what any caller can provoke gets no stack trace."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        provoked = isinstance(error, (web.RequestPayloadError, HttpProcessingError, ConnectionError))
        reason = str(error).replace("\n", " ") if error is not None else record.getMessage()
        if provoked:
            log.debug("a connection brought no HTTP", reason=reason)
        else:
            log.warning(record.getMessage(), exc_info=error)


def reports() -> logging.Logger:
    """A logger for the library."""
    logger = logging.Logger(__name__)  # noqa: LOG001 - one of its own, that no one else's settings reach
    logger.addHandler(_OneLine())
    return logger


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as error:
        response = json_response({"error": str(error)}, status_of(error))
        if isinstance(error, OverloadedError):
            response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
        elif isinstance(error, UnauthenticatedError):
            response.headers["WWW-Authenticate"] = 'Bearer realm="ferryline"'
        return response
    except web.HTTPException as error:
        return json_response({"error": _words(request, error)}, error.status)
    except Exception:
        fault_id = uuid.uuid4().hex[:12]
        log.exception("a request failed by the server's fault", id=fault_id, path=request.path)
        return json_response({"error": str(InternalFaultError(fault_id))}, 500)


def status_of(error: RequestError) -> int:
    """The status that says what `error` does."""
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


def json_response(document: Any, status: int = 200) -> web.Response:
    """A document as the body."""
    return web.Response(body=orjson.dumps(document), status=status, content_type=JSON)
