"""The protocol's answers: one method for each RPC, a message in and a message out.

Nothing here knows of sockets or of any transport, so that whatever carries the messages can call it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from ferryline.grpc_server import datatypes
from ferryline.grpc_server.configuration import PLATFORM, configuration
from ferryline.grpc_server.errors import RequestError
from ferryline.grpc_server.execution.policy import BatchPolicy
from ferryline.grpc_server.model_statistics import Counted, statistics_of
from ferryline.grpc_server.models import FollowedModel, Models
from ferryline.protos.grpc_service_pb2 import (
    ModelConfigRequest,
    ModelConfigResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ModelReadyRequest,
    ModelReadyResponse,
    ModelStatisticsRequest,
    ModelStatisticsResponse,
    ServerLiveRequest,
    ServerLiveResponse,
    ServerMetadataRequest,
    ServerMetadataResponse,
    ServerReadyRequest,
    ServerReadyResponse,
)
from ferryline.registry.documents import TensorSpec

NAME = "ferryline"

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
)
"""Clients such as perf_analyzer use what is named here, so only what is really served may be."""

MAX_MESSAGE_BYTES = 64 * 2**20
"""The largest message, where the settings do not say otherwise."""


class InferenceHandlers:
    """Answers what is asked of `models` and of the server itself.

    Args:
        models: what is served.
        batching_of: how the requests of a model run together, None where they do not.
        max_message_bytes: the largest message of the transports.
    """

    def __init__(
        self,
        models: Models,
        *,
        batching_of: Callable[[str], BatchPolicy | None] = lambda _model: None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> None:
        self._models = models
        self._batching_of = batching_of
        self._max_message_bytes = max_message_bytes
        self._draining = False

    def drain(self) -> None:
        """Say from now on that the server is not ready; requests are still answered."""
        self._draining = True

    @property
    def ready(self) -> bool:
        """Whether every required model serves and the server does not drain."""
        return self._models.ready and not self._draining

    def server_live(self, _request: ServerLiveRequest) -> ServerLiveResponse:
        """Alive, since it answers."""
        return ServerLiveResponse(live=True)

    def server_ready(self, _request: ServerReadyRequest) -> ServerReadyResponse:
        """Ready when every model is, until the server drains."""
        return ServerReadyResponse(ready=self.ready)

    def model_ready(self, request: ModelReadyRequest) -> ModelReadyResponse:
        """Whether a request for that model and version would be taken; an unknown one is simply not ready."""
        try:
            self._models.get(request.name).take(request.version)
        except RequestError:
            return ModelReadyResponse(ready=False)
        return ModelReadyResponse(ready=not self._draining)

    def server_metadata(self, _request: ServerMetadataRequest) -> ServerMetadataResponse:
        """The server's name and version, and the extensions of Triton's that it really has."""
        return ServerMetadataResponse(name=NAME, version=version(NAME), extensions=EXTENSIONS)

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

    def model_config(self, request: ModelConfigRequest) -> ModelConfigResponse:
        """How a model is served, in Triton's words.

        Raises:
            RequestError: the model or version cannot be asked.
        """
        model = self._models.get(request.name)
        served = model.take(request.version).served
        config = configuration(
            served,
            model.warm_versions,
            batching=self._batching_of(model.name),
            max_message_bytes=self._max_message_bytes,
        )
        return ModelConfigResponse(config=config)

    def model_statistics(
        self, request: ModelStatisticsRequest, counted: Counted = FollowedModel.versions
    ) -> ModelStatisticsResponse:
        """What is counted of one model, or of all.

        Raises:
            RequestError: there is no such model, or the version is not warm.
        """
        models = [self._models.get(request.name)] if request.name else list(self._models)
        version = models[0].take(request.version).served.version if request.name and request.version else None
        found = [entry for model in models for entry in statistics_of(model, version, counted)]
        return ModelStatisticsResponse(model_stats=found)


def _described(spec: TensorSpec) -> ModelMetadataResponse.TensorMetadata:
    datatype = datatypes.of_catalogue(spec.dtype).name
    return ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=datatype, shape=spec.shape)
