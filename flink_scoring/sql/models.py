"""The models that functions answer with, in a Python worker: followed, or loaded once through the gate."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

import numpy as np

from ferryline.flink_scoring.following import Wanted, followed_models, wait_for_model
from ferryline.flink_scoring.sql.columns import Columns
from ferryline.flink_scoring.sql.contracts import read_file, read_object
from ferryline.flink_scoring.sql.naming import ObjectName
from ferryline.flink_scoring.sql.planning import require_signature
from ferryline.flink_scoring.sql.predicting import Rows
from ferryline.flink_scoring.sql.sources import FileSource, FollowedSource, PlannedFunction, VersionSource
from ferryline.model_runtime.cache import BlobCache
from ferryline.model_runtime.gate import Gate, load_gate_limits
from ferryline.model_runtime.golden import check_golden_rows, warm_up
from ferryline.model_runtime.served import ServedModel
from ferryline.model_runtime.session import OnnxSession
from ferryline.registry.contract import contract_break
from ferryline.registry.digests import digest_of
from ferryline.registry.documents import GoldenRows, ModelFacts
from ferryline.registry.errors import RefusedError
from ferryline.registry.opening import open_registry
from ferryline.registry.settings import load_settings


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Answerer:
    """A version that answers.

    Attributes:
        facts: its contract.
        session: the loaded file.
        digest: of the manifest, or of a file without one: what it is, among all that this process has.
        version: its number; None for a file.
        generation: of the channel that made it serve; None where none did.
    """

    facts: ModelFacts
    session: OnnxSession
    digest: str
    version: int | None = None
    generation: int | None = None


class Models(Protocol):
    """Gives the versions that answer a batch of calls."""

    def shares(self, columns: Columns) -> Iterator[tuple[Answerer, Rows]]:
        """Who answers which rows; each row is answered once."""
        ...

    def answered(self, answerer: Answerer, rows: int) -> None:
        """So many rows were answered."""
        ...

    def close(self) -> None:
        """Give back what was taken."""
        ...


def open_models(planned: PlannedFunction) -> Models:
    """The models of a function, in this process.

    Raises:
        RefusedError: a gate refuses a version or file that stays.
        FerryError: it cannot be had.
    """
    match planned.source:
        case FollowedSource() as channel:
            return FollowedModel(channel, planned)
        case VersionSource() as version:
            return PinnedModel(_shared(version.manifest_digest, lambda: _load_version(version)))
        case FileSource() as file:
            return PinnedModel(_shared(file.digest, lambda: _load_file(file)))


class PinnedModel:
    """One version or file that answers every call."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer

    def shares(self, columns: Columns) -> Iterator[tuple[Answerer, Rows]]:
        """See `Models`."""
        yield self._answerer, np.arange(columns.count)

    def answered(self, answerer: Answerer, rows: int) -> None:
        """See `Models`."""

    def close(self) -> None:
        """See `Models`."""


class FollowedModel:
    """The version that a channel serves when a batch comes, and its canary for its share.

    A call has no key, so its arguments decide: the same arguments get the same version.
    """

    def __init__(self, source: FollowedSource, planned: PlannedFunction) -> None:
        accept = require_signature(planned.signature, planned.spec)
        purpose = f"{planned.signature} {planned.spec!r}"
        self._store = source.store
        self._wanted = Wanted(source.model, source.channel, purpose, accept)
        self._follower = followed_models.acquire(self._store, self._wanted, signatures=source.signatures)
        self._answers = followed_models.answers_of(self._store, self._wanted)

    def shares(self, columns: Columns) -> Iterator[tuple[Answerer, Rows]]:
        """See `Models`."""
        served, rows = wait_for_model(self._follower), np.arange(columns.count)
        if served.canary is None:
            yield _answerer(served), rows
            return
        takes = served.canary.split.takes
        drawn = np.fromiter(map(takes, columns.keys()), dtype=bool, count=columns.count)
        yield _answerer(served), rows[~drawn]
        yield _answerer(served.canary.model), rows[drawn]

    def answered(self, answerer: Answerer, rows: int) -> None:
        """Tell the heartbeats."""
        if answerer.version is not None:
            self._answers[answerer.version] += rows

    def close(self) -> None:
        """Stop following, where nobody else does."""
        followed_models.release(self._store, self._wanted)


def _answerer(served: ServedModel) -> Answerer:
    return Answerer(
        served.manifest, served.session, served.manifest.digest, served.version, served.generation
    )


# --- what stays -----------------------------------------------------------------------------------

_loaded: WeakValueDictionary[str, Answerer] = WeakValueDictionary()
_lock = threading.Lock()


def _shared(digest: str, load: Callable[[], Answerer]) -> Answerer:
    """What other functions of this process have loaded, as long as one of them is open."""
    with _lock:
        found = _loaded.get(digest)
        if found is None:
            found = _loaded[digest] = load()
        return found


def _load_version(source: VersionSource) -> Answerer:
    settings = load_settings(store=source.store, signatures=source.signatures)
    versions = open_registry(settings).versions(source.model)
    manifest = versions.get(source.version)
    if manifest.digest != source.manifest_digest:
        raise RefusedError(
            "digest",
            f"{source.model}@{source.version} is not the version that the query was planned with",
            "Someone altered the store; plan the query again once you know why",
        )
    path = _cached(settings.cache, manifest.blob.digest, lambda: versions.load(manifest))
    facts = Gate(load_gate_limits()).admit_file(path, manifest)
    if fault := contract_break(manifest, facts):
        raise RefusedError("contract", f"the file is not what its manifest says: {fault}", "Publish it again")
    session = _warmed(path, manifest, manifest.golden)
    return Answerer(manifest, session, manifest.digest, manifest.version)


def _load_file(source: FileSource) -> Answerer:
    data = source.data if source.data is not None else _read(source.place)
    if digest_of(data) != source.digest:
        raise RefusedError(
            "digest",
            f"{source.place} is another file than the one that the query was planned with",
            "Plan the query again",
        )
    facts = Gate(load_gate_limits()).admit(data)
    path = _cached(load_settings().cache, source.digest, lambda: data)
    return Answerer(facts, _warmed(path, facts, None), source.digest)


def _read(place: Path | ObjectName) -> bytes:
    return read_object(place) if isinstance(place, ObjectName) else read_file(place)


def _cached(folder: Path, digest: str, fetch: Callable[[], bytes]) -> Path:
    cache = BlobCache(folder)
    return cache.find(digest) or cache.keep(digest, fetch())


def _warmed(path: Path, facts: ModelFacts, golden: GoldenRows | None) -> OnnxSession:
    session = OnnxSession(path)
    if golden is None:
        warm_up(session, facts)
    else:
        check_golden_rows(session, facts, golden)
    return session
