"""The walk over a whole registry, or over one model of it.

What is written meanwhile is not looked at: the hint and the heartbeats are read before the logs are listed,
so what they claim is in the listing, or was lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from ferryline.registry import keys
from ferryline.registry.audit.findings import PUBLISH_AGAIN, Audit, Severity
from ferryline.registry.audit.logs import KnownVersion, check_channel, check_manifests, report_holes
from ferryline.registry.audit.reader import DocumentT, Read, Reader, UnreadableError
from ferryline.registry.catalogue import Registry
from ferryline.registry.contents import Contents, sort_contents
from ferryline.registry.digests import digest_of
from ferryline.registry.documents import ChannelEntry, Heartbeat, Manifest
from ferryline.registry.errors import NotFoundError
from ferryline.registry.garbage import FileState, Mark, fate
from ferryline.registry.hints import Hint
from ferryline.registry.log import READERS
from ferryline.registry.names import require_name
from ferryline.registry.parallel import in_order
from ferryline.registry.refusals import RefusalRecord
from ferryline.registry.stores.base import Listed, ObjectMissingError

IN_MEMORY = 64 << 20
"""Bytes of files that are read at a time; a larger file is read alone."""


class Observer(Protocol):
    """Told how far a walk has come."""

    def documents(self, done: int, total: int) -> None:
        """So many of so many documents were read."""

    def files(self, done: int, total: int) -> None:
        """So many of so many bytes of files were read."""


class _Nobody:
    def documents(self, done: int, total: int) -> None:
        """Nobody is told."""

    def files(self, done: int, total: int) -> None:
        """Nobody is told."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """That someone saw a log at a number."""

    where: str
    model: str
    channel: str | None
    number: int


def verify(
    registry: Registry, *, model: str | None = None, observer: Observer | None = None, readers: int = READERS
) -> Audit:
    """Walk everything, or one model; what is wrong is in the result and not raised.

    Args:
        registry: what to walk; its seal judges the signatures.
        model: only this one, with the files of its versions.
        observer: told how far it has come.
        readers: how many objects are read at a time.

    Raises:
        NotFoundError: there is no such model.
        StoreError: the store does not answer any more.
    """
    if model is not None:
        require_name(model, what="model")
    return _Walk(registry, model, observer or _Nobody(), readers).run()


class _Walk:
    def __init__(self, registry: Registry, model: str | None, observer: Observer, readers: int) -> None:
        self._registry = registry
        self._store = registry.store
        self._model = model
        self._observer = observer
        self._readers = readers
        self._reader = Reader(registry.store)
        self._audit = Audit()
        self._read = 0
        self._to_read = 0

    def run(self) -> Audit:
        claims = [*self._claims_of_hint(), *self._claims_of_consumers()]
        contents = self._contents()
        self._to_read = _count(contents)
        known = self._versions(contents)
        heads = self._channels(contents, known)
        self._check_claims(claims, contents)
        self._files(contents, known, heads)
        self._rest(contents)
        order = list(Severity)
        self._audit.findings.sort(key=lambda finding: (order.index(finding.severity), finding.where))
        return self._audit

    def _contents(self) -> Contents:
        if self._model is None:
            contents = sort_contents(self._store.list(""))
        else:
            prefixes = (f"{keys.MODELS}{self._model}/", "blobs/", "garbage/")
            contents = sort_contents(listed for prefix in prefixes for listed in self._store.list(prefix))
            if not contents.models and not contents.refusals:
                raise NotFoundError(f"no model {self._model} here; `ferry list` shows what there is")
            contents.foreign = [each for each in contents.foreign if each.key.startswith(prefixes[0])]
        self._audit.models = len(contents.models)
        return contents

    # --- what others claim ------------------------------------------------------------------------

    def _claims_of_hint(self) -> Iterator[_Claim]:
        for listed in self._store.list(keys.HINT):
            hint = self._document(Hint, listed, "remove it: it is written anew")
            for model, told in hint.models.items() if hint is not None else ():
                yield _Claim(listed.key, model, None, told.versions)
                for channel, generation in told.channels.items():
                    yield _Claim(listed.key, model, channel, generation)

    def _claims_of_consumers(self) -> Iterator[_Claim]:
        for listed in self._store.list(keys.CONSUMERS):
            if not sort_contents([listed]).heartbeats:
                continue
            heartbeat = self._document(Heartbeat, listed, "remove it: a running consumer writes it anew")
            for report in heartbeat.models if heartbeat is not None else ():
                if report.generation is not None:
                    yield _Claim(listed.key, report.model, report.channel, report.generation)

    def _document(self, kind: type[DocumentT], listed: Listed, remedy: str) -> DocumentT | None:
        read = self._reader.document(kind, listed)
        if read.fault is not None:
            self._audit.add(Severity.WARNING, listed.key, read.fault, remedy)
        return read.document

    def _check_claims(self, claims: Iterable[_Claim], contents: Contents) -> None:
        for claim in claims:
            if self._model not in {None, claim.model}:
                continue
            log = (
                contents.versions.get(claim.model, {})
                if claim.channel is None
                else contents.channels.get((claim.model, claim.channel), {})
            )
            newest = max(log, default=0)
            if claim.number > newest:
                name = f"{claim.model}:{claim.channel}" if claim.channel else f"the versions of {claim.model}"
                self._audit.add(
                    Severity.DAMAGED,
                    claim.where,
                    f"it has seen {name} at {claim.number}, and the log ends at {newest}",
                    "the newest entries were lost, or this object lies: restore the log from a backup, or "
                    "remove this object",
                )

    # --- the logs ---------------------------------------------------------------------------------

    def _versions(self, contents: Contents) -> dict[str, dict[int, KnownVersion | None]]:
        known = {}
        for model, log in sorted(contents.versions.items()):
            report_holes(self._audit, keys.versions(model), log)
            reads = self._documents(Manifest, log)
            known[model] = check_manifests(self._audit, model, reads, self._registry.seal.require)
        return known

    def _channels(
        self, contents: Contents, known: dict[str, dict[int, KnownVersion | None]]
    ) -> list[ChannelEntry]:
        heads = []
        for (model, channel), log in sorted(contents.channels.items()):
            report_holes(self._audit, keys.channel(model, channel), log)
            head = check_channel(
                self._audit,
                model,
                channel,
                self._documents(ChannelEntry, log),
                known.get(model, {}),
                self._registry.seal.require,
            )
            heads += [head] if head is not None else []
        return heads

    def _documents(self, kind: type[DocumentT], log: dict[int, Listed]) -> Iterator[Read[DocumentT]]:
        def read(number: int) -> Read[DocumentT]:
            return self._reader.document(kind, log[number], number)

        for each in in_order(read, sorted(log), readers=self._readers):
            self._tick()
            yield each

    def _tick(self) -> None:
        self._read += 1
        self._observer.documents(self._read, self._to_read)

    # --- the files --------------------------------------------------------------------------------

    def _files(
        self,
        contents: Contents,
        known: dict[str, dict[int, KnownVersion | None]],
        heads: Iterable[ChannelEntry],
    ) -> None:
        owners = _owners(known)
        served = {digest: f"{head.model}:{head.channel}" for head in heads for digest in _served(head)}
        for digest in sorted(owners.keys() - contents.files.keys()):
            self._missing(digest, owners[digest][0], served.get(digest))
        unowned = contents.files.keys() - owners.keys()
        if self._model is None:
            unreadable = any(version is None for log in known.values() for version in log.values())
            for digest in sorted(unowned):
                self._unowned(contents.files[digest], unreadable=unreadable)
            unowned = set()
        wanted = [contents.files[digest] for digest in sorted(contents.files.keys() - unowned)]
        self._hash([file for file in wanted if self._has_its_size(file, owners)])

    def _missing(self, digest: str, version: str, served: str | None) -> None:
        became = fate(self._store, digest)
        if became.state in {FileState.KEPT, FileState.MARKED}:  # published since the listing
            return
        collected = became.state is FileState.COLLECTED
        if collected and served is None:
            self._audit.add(
                Severity.NOTE,
                keys.blob(digest),
                f"the file of {version} {became}",
                "nothing needs to be done",
            )
            return
        serves = f", and {served} serves it" if served else ""
        self._audit.add(
            Severity.DAMAGED, keys.blob(digest), f"the file of {version} {became}{serves}", PUBLISH_AGAIN
        )

    def _unowned(self, file: Listed, *, unreadable: bool) -> None:
        whose = "no manifest that can be read" if unreadable else "no version"
        self._audit.add(
            Severity.NOTE,
            file.key,
            f"{whose} has this file: a publish was cut off, or is under way",
            "`ferry gc` takes it away",
        )

    def _has_its_size(self, file: Listed, owners: dict[str, tuple[str, int]]) -> bool:
        version, size = owners.get(_digest(file), ("", file.size))
        if file.size == size:
            return True
        self._audit.add(
            Severity.DAMAGED,
            file.key,
            f"the file of {version} has {file.size} bytes instead of {size}",
            PUBLISH_AGAIN,
        )
        return False

    def _hash(self, files: list[Listed]) -> None:
        total = sum(file.size for file in files)
        for batch in _batches(files, self._readers):
            faults = in_order(self._hash_one, batch, readers=min(self._readers, len(batch)))
            for file, fault in zip(batch, faults, strict=True):
                self._audit.files += 1
                self._audit.bytes += file.size
                if fault is not None:
                    self._audit.add(Severity.DAMAGED, file.key, fault, PUBLISH_AGAIN)
            self._observer.files(self._audit.bytes, total)

    def _hash_one(self, file: Listed) -> str | None:
        try:
            actual = digest_of(self._reader.data(file.key))
        except ObjectMissingError:
            became = fate(self._store, _digest(file))
            return None if became.state is not FileState.MISSING else f"the file {became}"
        except UnreadableError as error:
            return str(error)
        return None if actual == _digest(file) else f"its bytes have the digest {actual}"

    # --- the rest ---------------------------------------------------------------------------------

    def _rest(self, contents: Contents) -> None:
        for ledger in contents.refusals.values():
            for listed in ledger:
                self._document(RefusalRecord, listed, "remove it: the ledger is for people")
                self._tick()
        for listed in contents.marks.values():
            self._document(Mark, listed, "remove it: `ferry gc` writes it anew")
            self._tick()
        for listed in contents.foreign:
            self._audit.add(
                Severity.WARNING,
                listed.key,
                "no part of a registry writes this object",
                "remove it, unless another program of yours put it there",
            )


def _count(contents: Contents) -> int:
    logs = [*contents.versions.values(), *contents.channels.values(), *contents.refusals.values()]
    return sum(map(len, logs)) + len(contents.marks)


def _owners(known: dict[str, dict[int, KnownVersion | None]]) -> dict[str, tuple[str, int]]:
    """A version that has each file, and the size it says the file has."""
    return {
        version.blob_digest: (f"{model}@{number}", version.size)
        for model, log in known.items()
        for number, version in log.items()
        if version is not None
    }


def _served(head: ChannelEntry) -> list[str]:
    return [head.blob_digest, *([head.canary.blob_digest] if head.canary else [])]


def _digest(file: Listed) -> str:
    return f"sha256:{file.key.rpartition('/')[2]}"


def _batches(files: Iterable[Listed], most: int) -> Iterator[list[Listed]]:
    """Files to be read together: so many at most, and so many bytes unless one alone is larger."""
    batch: list[Listed] = []
    size = 0
    for file in files:
        if batch and (len(batch) >= most or size + file.size > IN_MEMORY):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.size
    if batch:
        yield batch
