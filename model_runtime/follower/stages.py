"""What each stage does to a candidate: the IO between two steps of the state machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from model_runtime.cache import BlobCache
from model_runtime.follower.rules import Phase
from model_runtime.golden import check_golden_rows, warm_up
from model_runtime.inspection import inspect_model
from model_runtime.session import OnnxSession
from registry.catalogue import Registry
from registry.contract import contract_break
from registry.digests import require_digest
from registry.documents import ChannelEntry, Manifest, ModelFacts
from registry.errors import (
    BrokenChainError,
    CorruptDocumentError,
    DigestMismatchError,
    NotFoundError,
    RefusedError,
    UnknownSchemaError,
    UsageError,
)

_T = TypeVar("_T")

_REMEDY = "Publish the version again and promote that"


@dataclass(slots=True)
class Candidate:
    """A version on its way to serve, as far as it has come.

    `may_break_contract` says that someone allowed another contract since what serves here was promoted.
    """

    entry: ChannelEntry
    may_break_contract: bool = False
    manifest: Manifest | None = None
    data: bytes | None = None
    path: Path | None = None
    session: OnnxSession | None = None

    def require_manifest(self) -> Manifest:
        """The manifest, which is there once the candidate was fetched."""
        if self.manifest is None:
            raise ValueError("the candidate was not fetched yet")
        return self.manifest

    def require_session(self) -> OnnxSession:
        """The session, which is there once the candidate was loaded."""
        if self.session is None:
            raise ValueError("the candidate was not loaded yet")
        return self.session


class Stages:
    """Takes candidates from the registry to a warm session.

    Args:
        registry: where versions come from.
        cache: where verified files lie.
        accept: the consumer's own demand on a contract; raises `RefusedError` where it is not met.
    """

    def __init__(
        self, registry: Registry, cache: BlobCache, accept: Callable[[ModelFacts], None] | None = None
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._accept = accept

    def run(self, stage: Phase, candidate: Candidate, incumbent: Manifest | None) -> None:
        """Take `candidate` through `stage`.

        Raises:
            RefusedError: it must not serve.
            StoreError: the store failed on the way; it may go right the next time.
        """
        match stage:
            case Phase.FETCHING:
                self._fetch(candidate)
            case Phase.VERIFYING:
                self._verify(candidate, incumbent)
            case Phase.LOADING:
                candidate.session = _load(_require(candidate.path))
            case Phase.WARMING:
                _warm(candidate)
            case _:
                raise ValueError(f"{stage} is no stage")

    def _fetch(self, candidate: Candidate) -> None:
        versions = self._registry.versions(candidate.entry.model)
        candidate.manifest = manifest = _read_manifest(self._registry, candidate.entry)
        candidate.path = self._cache.find(manifest.blob.digest)
        if candidate.path is not None:
            return
        try:
            candidate.data = versions.download(manifest)
        except BrokenChainError as error:
            raise RefusedError("blob", str(error), _REMEDY) from error

    def _verify(self, candidate: Candidate, incumbent: Manifest | None) -> None:
        manifest = candidate.require_manifest()
        if candidate.path is None:
            data = _require(candidate.data)
            what = f"the file of {manifest.model}@{manifest.version}"
            try:
                require_digest(data, manifest.blob.digest, what=what)
            except DigestMismatchError as error:
                raise RefusedError("digest", str(error), _REMEDY) from error
            candidate.path = self._cache.keep(manifest.blob.digest, data)
            candidate.data = None
        self._require_contract(candidate, incumbent)

    def _require_contract(self, candidate: Candidate, incumbent: Manifest | None) -> None:
        manifest = candidate.require_manifest()
        facts = inspect_model(_require(candidate.path).read_bytes())
        if fault := contract_break(manifest, facts):
            raise RefusedError("contract", f"the file is not what its manifest says: {fault}", _REMEDY)
        if self._accept is not None:
            self._accept(manifest)
        if incumbent is None or candidate.may_break_contract:
            return
        if fault := contract_break(incumbent, manifest):
            raise RefusedError(
                "contract",
                f"version {manifest.version} cannot take the place of {incumbent.version}: {fault}",
                "If callers are ready for it, promote with --allow-contract-change",
            )


def _read_manifest(registry: Registry, entry: ChannelEntry) -> Manifest:
    try:
        manifest = registry.versions(entry.model).get(entry.version)
    except UnknownSchemaError as error:
        raise RefusedError("schema", str(error), "Upgrade this consumer") from error
    except (CorruptDocumentError, BrokenChainError, NotFoundError) as error:
        raise RefusedError("manifest", str(error), _REMEDY) from error
    if (manifest.digest, manifest.blob.digest) != (entry.manifest_digest, entry.blob_digest):
        raise RefusedError(
            "digest",
            f"the manifest of {entry.model}@{entry.version} is not the one that was promoted",
            "Someone altered the store; promote the version again once you know why",
        )
    return manifest


def _load(path: Path) -> OnnxSession:
    try:
        return OnnxSession(path)
    except RefusedError:
        if path.exists():
            raise
    # no fault of the model's: another consumer pruned the cache, or someone emptied it
    raise UsageError(f"{path} vanished from the cache while it was loaded; it is fetched again")


def _warm(candidate: Candidate) -> None:
    manifest, session = candidate.require_manifest(), candidate.require_session()
    if manifest.golden is None:
        warm_up(session, manifest)
    else:
        check_golden_rows(session, manifest, manifest.golden)


def _require(value: _T | None) -> _T:
    if value is None:
        raise ValueError("the candidate skipped a stage")
    return value
