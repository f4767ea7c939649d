"""What each stage does to a candidate: the IO between two steps of the state machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from ferryline.model_runtime.cache import BlobCache
from ferryline.model_runtime.follower.evidence import REMEDY, Doubts, download, read_manifest
from ferryline.model_runtime.follower.rules import Phase
from ferryline.model_runtime.gate import Gate, load_gate_limits
from ferryline.model_runtime.served import ServedModel
from ferryline.registry.catalogue import Registry
from ferryline.registry.contract import contract_break
from ferryline.registry.documents import ChannelEntry, Manifest, ModelFacts
from ferryline.registry.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from ferryline.model_runtime.session import OnnxSession

_T = TypeVar("_T")

Kept = Callable[[str], ServedModel | None]
"""The warm model of a manifest's digest, where this consumer still has it."""


class Loader(Protocol):
    """Makes verified files ready to serve: here, or wherever requests are answered."""

    def load(self, entry: ChannelEntry, manifest: Manifest, path: Path) -> OnnxSession:
        """The session of a version that `entry` names.

        Raises:
            RefusedError: it cannot be loaded, and never will.
            FerryError: it could not be loaded for now.
        """
        ...

    def warm(self, session: OnnxSession, manifest: Manifest) -> None:
        """Run it once; its golden rows must come out, where it has some.

        Raises:
            RefusedError: they do not.
        """
        ...


@dataclass(slots=True)
class Part:
    """One of the versions that an entry names, as far as it has come."""

    version: int
    blob_digest: str
    manifest_digest: str
    manifest: Manifest | None = None
    data: bytes | None = None
    path: Path | None = None
    session: OnnxSession | None = None
    warm: bool = False

    def require_manifest(self) -> Manifest:
        """The manifest, which is there once the part was fetched."""
        return _require(self.manifest)

    def require_session(self) -> OnnxSession:
        """The session, which is there once the part was loaded."""
        return _require(self.session)


class Candidate:
    """What an entry names, on its way to serve: a version, and perhaps a canary beside it.

    Args:
        entry: the generation.
        trusted: whether somebody trusted vouches for `entry`.
        may_break_contract: tells whether someone allowed another contract than that of what serves here; it
            is asked only where the contract is another.
    """

    def __init__(
        self,
        entry: ChannelEntry,
        *,
        trusted: bool = True,
        may_break_contract: Callable[[], bool] = lambda: False,
    ) -> None:
        self.entry = entry
        self.trusted = trusted
        self.may_break_contract = may_break_contract
        self.stable = Part(entry.version, entry.blob_digest, entry.manifest_digest)
        share = entry.canary
        self.canary = Part(share.version, share.blob_digest, share.manifest_digest) if share else None
        self.under_way = self.stable
        """The part that a stage looked at last."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The version, then the canary."""
        return (self.stable,) if self.canary is None else (self.stable, self.canary)


class Stages:
    """Takes candidates from the registry to a warm session.

    Args:
        registry: where versions come from.
        cache: where verified files lie.
        kept: gives what is warm already, which need not be fetched and loaded again.
        loader: loads and warms what passed the gate.
        accept: the consumer's own demand on a contract; raises `RefusedError` where it is not met.

    Attributes:
        doubts: what the store showed damaged at the last try.
    """

    def __init__(
        self,
        registry: Registry,
        cache: BlobCache,
        kept: Kept,
        loader: Loader,
        accept: Callable[[ModelFacts], None] | None = None,
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._kept = kept
        self._loader = loader
        self._accept = accept
        self._gate = Gate(load_gate_limits())
        self.doubts = Doubts()

    def run(self, stage: Phase, candidate: Candidate, incumbent: Manifest | None) -> None:
        """Take `candidate` through `stage`.

        Raises:
            RefusedError: it must not serve. What is damaged in the store is refused only when a second try,
                some time later, finds it damaged too.
            FerryError: something failed on the way, or the store does not show what the entry names; the next
                try may succeed.
        """
        if stage is Phase.FETCHING:
            self._registry.seal.require(candidate.entry)
        for part in candidate.parts:
            candidate.under_way = part
            match stage:
                case Phase.FETCHING:
                    self._fetch(candidate.entry.model, part)
                case Phase.VERIFYING:
                    self._verify(part)
                    self._require_contract(candidate, part, incumbent)
                case Phase.LOADING:
                    self._load(candidate.entry, part)
                case Phase.WARMING:
                    self._warm(part)
                case _:
                    raise ValueError(f"{stage} is no stage")

    def _fetch(self, model: str, part: Part) -> None:
        kept = self._kept(part.manifest_digest)
        if kept is not None:
            part.manifest, part.session, part.warm = kept.manifest, kept.session, True
            return
        part.manifest = manifest = self.doubts.settle(
            "manifest", part, lambda: read_manifest(self._registry, model, part)
        )
        self._registry.seal.require(manifest)
        self._gate.require_size(manifest.blob.size)
        part.path = self._cache.find(manifest.blob.digest)
        if part.path is None:
            part.data = self.doubts.settle("file", part, lambda: download(self._registry, manifest))

    def _verify(self, part: Part) -> None:
        if part.warm:
            return
        manifest = part.require_manifest()
        if part.path is None:
            part.path = self._cache.keep(manifest.blob.digest, _require(part.data))
            part.data = None
        facts = self.doubts.settle(
            "cached file", part, lambda: self._gate.admit_file(_require(part.path), manifest)
        )
        if fault := contract_break(manifest, facts):
            raise RefusedError("contract", f"the file is not what its manifest says: {fault}", REMEDY)

    def _load(self, entry: ChannelEntry, part: Part) -> None:
        if part.session is None:
            part.session = self._loader.load(entry, part.require_manifest(), _require(part.path))

    def _warm(self, part: Part) -> None:
        if not part.warm:
            self._loader.warm(part.require_session(), part.require_manifest())

    def _require_contract(self, candidate: Candidate, part: Part, incumbent: Manifest | None) -> None:
        manifest = part.require_manifest()
        if self._accept is not None:
            self._accept(manifest)
        if incumbent is None:
            return
        fault = contract_break(incumbent, manifest)
        if fault is not None and not candidate.may_break_contract():
            raise RefusedError(
                "contract",
                f"version {manifest.version} cannot take the place of {incumbent.version}: {fault}",
                "If callers are ready for it, promote with --allow-contract-change",
            )


def vanished(path: Path) -> UsageError:
    """What to say of a file that was in the cache a moment ago."""
    return UsageError(f"{path} vanished from the cache while it was loaded; it is fetched again")


def _require(value: _T | None) -> _T:
    if value is None:
        raise ValueError("the candidate skipped a stage")
    return value
