"""The repository as Triton's clients see it: what there is, and loading and unloading by request."""

from __future__ import annotations

from collections.abc import Iterator

from ferryline.grpc_server.call import Call
from ferryline.grpc_server.channels import FollowedChannel
from ferryline.grpc_server.control import ModelControl
from ferryline.grpc_server.errors import InvalidRequestError, UnsupportedError, shortened
from ferryline.grpc_server.models import FollowedModel, Models
from ferryline.model_runtime.follower.rules import Phase
from ferryline.protos import grpc_service_pb2 as pb

READY = "READY"
LOADING = "LOADING"
UNAVAILABLE = "UNAVAILABLE"

UNLOADED = "unloaded"
"""Triton's own word for why."""

UNLOAD_DEPENDENTS = "unload_dependents"
"""What Triton's client sends with each unload; it is about ensembles, which there are not here."""

_Index = pb.RepositoryIndexResponse.ModelIndex


class RepositoryHandlers:
    """Answers the three RPCs of the model repository.

    Args:
        models: what is served.
        control: who decides on that.
    """

    def __init__(self, models: Models, control: ModelControl) -> None:
        self._models = models
        self._control = control

    def index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """Every warm version, and every model that has none, with the reason."""
        _require_one_repository(request.repository_name)
        entries = [entry for model in self._models for entry in _entries(model)]
        entries += [
            _Index(name=name, state=UNAVAILABLE, reason=UNLOADED)
            for name in sorted(self._control.unloaded)
            if self._models.find(name) is None
        ]
        return pb.RepositoryIndexResponse(
            models=[entry for entry in entries if entry.state == READY or not request.ready]
        )

    async def load(
        self, request: pb.RepositoryModelLoadRequest, call: Call
    ) -> pb.RepositoryModelLoadResponse:
        """Serve a model; answered once it serves.

        Raises:
            RequestError: it does not, or it is not for callers to say.
        """
        _require_one_repository(request.repository_name)
        for name in request.parameters:
            raise UnsupportedError(
                f"load of {shortened(request.model_name)} with the parameter {shortened(name)}: files and "
                "configurations come from the registry; publish a version with `ferry publish`"
            )
        await self._control.load(request.model_name, call)
        return pb.RepositoryModelLoadResponse()

    async def unload(
        self, request: pb.RepositoryModelUnloadRequest, _call: Call
    ) -> pb.RepositoryModelUnloadResponse:
        """Serve a model no more.

        Raises:
            RequestError: it goes on being served, or was not.
        """
        _require_one_repository(request.repository_name)
        for name in request.parameters:
            if name != UNLOAD_DEPENDENTS:
                raise InvalidRequestError(f"unload takes no parameter {shortened(name)}")
        await self._control.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()


def _entries(model: FollowedModel) -> Iterator[_Index]:
    for version in sorted(model.warm_versions):
        yield _Index(name=model.name, version=str(version), state=READY, reason=_serves(model, version))
    for channel in model.channels:
        if channel.current is None:
            yield _unready(channel, named=len(model.channels) > 1)


def _serves(model: FollowedModel, version: int) -> str:
    """Which channels the version serves; empty, as Triton has it, where there is one channel anyway."""
    if len(model.channels) == 1:
        return ""
    names = [each.name for each in model.channels if each.current and each.current.served.version == version]
    return f"serves {', '.join(names)}" if names else ""


def _unready(channel: FollowedChannel, *, named: bool) -> _Index:
    """A channel without a version; where a model has several, its name stands in the version's place."""
    report = channel.follower.report()
    idle = report.phase == Phase.FOLLOWING
    nothing = f"nothing is promoted in channel {report.channel!r}" if idle else str(report.phase)
    return _Index(
        name=channel.model,
        version=channel.name if named else "",
        state=UNAVAILABLE if idle else LOADING,
        reason=report.last_error or nothing,
    )


def _require_one_repository(name: str) -> None:
    if name:
        raise InvalidRequestError(
            f"no repository {shortened(name)}: the server has one, its registry; leave the name out"
        )
