"""The protocol's answers: one method for each RPC, a message in and a message out.

Nothing here knows of sockets or of any transport, so that whatever carries the messages can call it.
"""

from __future__ import annotations

import uuid
from importlib.metadata import version
from time import perf_counter_ns

import structlog

from grpc_server import datatypes
from grpc_server.call import UNBOUNDED, Call
from grpc_server.contract import read_feeds, read_requested
from grpc_server.datatypes import Array
from grpc_server.errors import InvalidRequestError, RequestError
from grpc_server.models import Models
from grpc_server.offering import Offering
from protos.grpc_service_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from registry.documents import TensorSpec

NAME = "modelferry"
PLATFORM = "onnxruntime_onnx"

log = structlog.get_logger(__name__)


class InferenceHandlers:
    """Answers the six core RPCs for `models`."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._draining = False

    def drain(self) -> None:
        """Say from now on that the server is not ready; requests are still answered."""
        self._draining = True

    def server_live(self, _request: ServerLiveRequest) -> ServerLiveResponse:
        """Alive, since it answers."""
        return ServerLiveResponse(live=True)

    def server_ready(self, _request: ServerReadyRequest) -> ServerReadyResponse:
        """Ready when every model is, until the server drains."""
        return ServerReadyResponse(ready=self._models.ready and not self._draining)

    def model_ready(self, request: ModelReadyRequest) -> ModelReadyResponse:
        """Whether a request for that model and version would be taken; an unknown one is simply not ready."""
        try:
            self._models.get(request.name).take(request.version)
        except RequestError:
            return ModelReadyResponse(ready=False)
        return ModelReadyResponse(ready=not self._draining)

    def server_metadata(self, _request: ServerMetadataRequest) -> ServerMetadataResponse:
        """The server's name and version; it has no extensions yet."""
        return ServerMetadataResponse(name=NAME, version=version(NAME))

    def model_metadata(self, request: ModelMetadataRequest) -> ModelMetadataResponse:
        """The contract of a model, and its warm versions.

        Raises:
            RequestError: the model or version cannot be asked.
        """
        model = self._models.get(request.name)
        manifest = model.take(request.version).served.manifest
        return ModelMetadataResponse(
            name=model.name,
            versions=[str(number) for number in sorted(model.warm_versions)],
            platform=PLATFORM,
            inputs=[_described(spec) for spec in manifest.inputs],
            outputs=[_described(spec) for spec in manifest.outputs],
        )

    def model_infer(self, request: ModelInferRequest, call: Call = UNBOUNDED) -> ModelInferResponse:
        """Run a model.

        Raises:
            RequestError: the request does not fit, or the model or version cannot be asked.
        """
        began = perf_counter_ns()
        offering = self._models.get(request.model_name).take(request.model_version, request.id)
        counters = offering.counters
        try:
            feeds = read_feeds(request, offering.inputs)
            names = read_requested(request, offering.outputs) if request.outputs else offering.outputs
            decoded = perf_counter_ns()
            results = _run(offering, feeds, names)
            ran = perf_counter_ns()
            reply = offering.writer.write(request, results)
        except BaseException:
            counters.failed(began, perf_counter_ns())
            raise
        call.answered_by(offering.provenance)
        counters.answered(offering.rows(feeds), began, decoded, ran, perf_counter_ns())
        return reply


def _run(offering: Offering, feeds: dict[str, Array], names: list[str] | tuple[str, ...]) -> dict[str, Array]:
    try:
        return offering.session.run(feeds, names)
    except ValueError as error:
        # each input fits its contract, so they do not fit each other: free dimensions that must be equal
        fault_id = uuid.uuid4().hex[:12]
        served = offering.served
        log.warning(
            "a model could not be run",
            model=served.name,
            version=served.version,
            id=fault_id,
            reason=str(error),
        )
        shapes = ", ".join(f"{name!r} {list(array.shape)}" for name, array in feeds.items())
        raise InvalidRequestError(
            f"model {served.name!r} version {served.version} cannot be run on inputs of these shapes "
            f"together: {shapes}; the server's log has more under id {fault_id}"
        ) from error


def _described(spec: TensorSpec) -> ModelMetadataResponse.TensorMetadata:
    datatype = datatypes.of_catalogue(spec.dtype).name
    return ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=datatype, shape=spec.shape)
