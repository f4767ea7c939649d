"""Plans functions: reads the contract of each model, where the query is planned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ferryline.flink_scoring.sql.config import FunctionsConfig
from ferryline.flink_scoring.sql.naming import ChannelName, FileName, ObjectName, VersionName
from ferryline.flink_scoring.sql.planning import plan_function
from ferryline.flink_scoring.sql.sources import (
    FileSource,
    FollowedSource,
    PlannedFunction,
    Source,
    VersionSource,
)
from ferryline.model_runtime.inspection import inspect_model
from ferryline.registry.digests import digest_of
from ferryline.registry.documents import Manifest, ModelFacts
from ferryline.registry.errors import NotFoundError, UsageError
from ferryline.registry.names import ModelReference
from ferryline.registry.opening import open_registry
from ferryline.registry.settings import Settings, load_settings
from ferryline.registry.signing.policy import SignaturePolicy
from ferryline.registry.stores import ObjectMissingError, open_store
from ferryline.registry.stores.base import require_key

LARGEST_SHIPPED = 16 * 2**20
"""Bytes of a file that travels with the query; a larger one is read where the worker runs."""


def plan_functions(config: FunctionsConfig) -> Iterator[PlannedFunction]:
    """Plan all functions of a file.

    Raises:
        FerryError: as `plan_one`.
    """
    for name in config.functions:
        yield plan_one(config, name)


def plan_one(config: FunctionsConfig, name: str) -> PlannedFunction:
    """Plan a function with what its model is now.

    Raises:
        UsageError: there is no such function, or what the file says does not fit the model.
        NotFoundError: there is no such model, version, channel or file.
        RefusedError: a gate refuses the model, or SQL cannot call it.
        StoreError: the registry cannot be read.
    """
    spec = config.function(name)
    source, facts = _resolve(config, name)
    return PlannedFunction(plan_function(name, spec, facts).signature, spec, source)


def read_object(name: ObjectName) -> bytes:
    """The bytes of an object.

    Raises:
        NotFoundError: there is none.
        StoreError: the store cannot be read.
        UsageError: it cannot be an object's name.
    """
    try:
        return open_store(name.folder).get(require_key(name.key)).data
    except ObjectMissingError as error:
        raise NotFoundError(f"there is no {name}; name the model's own place") from error


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        NotFoundError: there is none.
        UsageError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}; name the model's own place") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _resolve(config: FunctionsConfig, name: str) -> tuple[Source, ModelFacts]:
    match config.reference(name):
        case ChannelName(model, channel):
            settings, manifest = _manifest(config, ModelReference(model, channel=channel))
            return FollowedSource(settings.store, model, channel, _demanded(settings)), manifest
        case VersionName(model, version):
            settings, manifest = _manifest(config, ModelReference(model, version=version))
            demanded = _demanded(settings)
            return VersionSource(settings.store, model, version, manifest.digest, demanded), manifest
        case FileName(path):
            return _file(path, read_file(path))
        case ObjectName() as place:
            return _file(place, read_object(place))


def _file(place: Path | ObjectName, data: bytes) -> tuple[Source, ModelFacts]:
    travels = isinstance(place, Path) and len(data) <= LARGEST_SHIPPED
    return FileSource(digest_of(data), place, data if travels else None), inspect_model(data)


def _demanded(settings: Settings) -> SignaturePolicy | None:
    # required here is required wherever the query runs, whatever a worker's own settings say
    return settings.signatures if settings.signatures is SignaturePolicy.REQUIRED else None


def _manifest(config: FunctionsConfig, reference: ModelReference) -> tuple[Settings, Manifest]:
    settings = load_settings(store=config.registry)
    return settings, open_registry(settings).resolve(reference, trusted=True)
