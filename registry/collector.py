"""A run of garbage collection: reads, decides (`ferryline.registry.collection`), marks, deletes.

See docs/adr/0012.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Protocol

from ferryline.registry import keys
from ferryline.registry.catalogue import Registry
from ferryline.registry.clocks import elapsed
from ferryline.registry.collection import (
    File,
    Found,
    Plan,
    Reference,
    Report,
    Retention,
    gone,
    old_refusals,
    plan,
)
from ferryline.registry.contents import Contents, sort_contents
from ferryline.registry.errors import BrokenChainError, NotFoundError, UntrustedAnswerError
from ferryline.registry.garbage import (
    MARK_SUFFIX,
    MARKS,
    Mark,
    collected_key,
    digests_below,
    find_file,
    mark_key,
)
from ferryline.registry.log import READERS
from ferryline.registry.parallel import in_order
from ferryline.registry.references import ReferenceReader
from ferryline.registry.stores.base import Listed, ObjectMissingError, Store
from ferryline.registry.turns import Turn

REREAD_AFTER = 10.0
"""Seconds after which the references are read again before anything more is deleted."""


class Observer(Protocol):
    """Told how far a run has come."""

    def reading(self) -> None:
        """A document was read."""

    def deleting(self, done: int, total: int) -> None:
        """So many bytes of so many were freed."""


class _Nobody:
    def reading(self) -> None:
        """Nobody is told."""

    def deleting(self, done: int, total: int) -> None:
        """Nobody is told."""


class Collector:
    """Garbage collection of `registry`.

    Args:
        registry: what to collect.
        retention: how much is kept.
        observer: told how far it has come, from any thread.
        monotonic: seconds that only grow, a suspend of the machine included.
        pause: waits for so many seconds.
        readers: how many documents are read at a time.
    """

    def __init__(
        self,
        registry: Registry,
        retention: Retention = Retention(),  # noqa: B008 - frozen
        *,
        observer: Observer | None = None,
        monotonic: Callable[[], float] = elapsed,
        pause: Callable[[float], None] = time.sleep,
        readers: int = READERS,
    ) -> None:
        self._registry = registry
        self._store: Store = registry.store
        self._retention = retention
        self._observer = observer or _Nobody()
        self._monotonic = monotonic
        self._pause = pause
        self._readers = readers
        self._reader = ReferenceReader(registry, retention, on_read=self._observer.reading, readers=readers)

    def preview(self) -> Report:
        """What a run would do now; nothing is written. Ages are by the store's time, if it tells it.

        Raises:
            UntrustedAnswerError: something cannot be read, so a run would stop as well.
            StoreError: the store does not answer.
        """
        contents = sort_contents(self._store.list(""))
        now = self._store.now()
        references = self._references(contents, now)
        decided = self._plan(contents, references, now)
        report = self._report(contents, decided, references, dry_run=True)
        report.collected = [file for file, _ in self._marked(decided.collect, contents)]
        report.marked = self._named(decided.mark, contents)
        report.spared = len(contents.files.keys() & set(decided.unmark))
        self._count_chaff(report, contents, now)
        return report

    def run(self) -> Report:
        """Mark what is garbage now, and delete what was for as long as the grace.

        Raises:
            ConflictError: a later run took over.
            UntrustedAnswerError: something cannot be read, and might refer to anything; nothing was deleted.
            StoreError: the store does not answer. What was not done, the next run does.
        """
        turn = Turn(self._store, actor=self._registry.actor, monotonic=self._monotonic, pause=self._pause)
        contents = sort_contents(self._store.list(""))
        now = turn.now()
        references = self._references(contents, now)
        read_at = self._monotonic()
        decided = self._plan(contents, references, now)
        report = self._report(contents, decided, references, dry_run=False)
        self._unmark(decided, contents, turn)
        report.spared = len(contents.files.keys() & set(decided.unmark))
        report.marked = self._mark(decided.mark, contents, turn)
        self._delete_chaff(report, contents, turn)
        self._collect(self._due(decided.collect, contents), turn, report, read_at)
        turn.finish(contents.runs)
        return report

    # --- deciding ---------------------------------------------------------------------------------

    def _references(self, contents: Contents, now: datetime) -> list[Reference]:
        try:
            return self._reader.read(contents, now=now)
        except (UntrustedAnswerError, NotFoundError) as error:
            raise BrokenChainError(
                f"nothing is collected, because what keeps files cannot be read: {error}. "
                "`ferry verify` shows all that is damaged"
            ) from error

    def _plan(self, contents: Contents, references: Iterable[Reference], now: datetime) -> Plan:
        found = Found(contents.files, contents.marks, contents.collected)
        kept = {reference.digest for reference in references}
        return plan(found, kept, now=now, grace=self._retention.grace)

    def _report(
        self, contents: Contents, decided: Plan, references: list[Reference], *, dry_run: bool
    ) -> Report:
        return Report(
            dry_run=dry_run,
            waiting=[file for file, _ in self._marked(decided.wait, contents)],
            kept_files=len(decided.kept),
            kept_bytes=sum(contents.files[digest].size for digest in decided.kept),
            kept_because=references,
        )

    def _marked(self, digests: Iterable[str], contents: Contents) -> list[tuple[File, bytes]]:
        """Marked files, each with the bytes of its mark: the witness that nobody spared it since."""
        wanted = list(digests)
        witnesses = in_order(self._read_mark, wanted, readers=self._readers)
        return [
            (_file(contents.files[digest], contents.marks[digest], witness), witness)
            for digest, witness in zip(wanted, witnesses, strict=True)
            if witness is not None
        ]

    def _read_mark(self, digest: str) -> bytes | None:
        try:
            return self._store.get(mark_key(digest)).data
        except ObjectMissingError:
            return None

    def _named(self, digests: Iterable[str], contents: Contents) -> list[File]:
        wanted = list(digests)
        owners = self._owners(set(wanted), contents)
        return [File(digest, contents.files[digest].size, owners.get(digest, ())) for digest in wanted]

    def _owners(self, wanted: set[str], contents: Contents) -> Mapping[str, tuple[str, ...]]:
        """The versions that have a file of `wanted`, looked for from the newest until each has one."""
        owners: dict[str, tuple[str, ...]] = {}
        if not wanted:
            return owners
        for (model, version), digest in self._reader.digests(_newest_first(contents)):
            if digest in wanted:
                owners[digest] = (*owners.get(digest, ()), f"{model}@{version}")
                if len(owners) == len(wanted):
                    break
        return owners

    # --- marking ----------------------------------------------------------------------------------

    def _unmark(self, decided: Plan, contents: Contents, turn: Turn) -> None:
        for digest in decided.unmark:
            if digest not in contents.files and self._is_nobodys(digest):
                self._forget(digest, turn)
            turn.remove(mark_key(digest))
        for digest in decided.forget:
            self._forget(digest, turn)

    def _forget(self, digest: str, turn: Turn) -> None:
        turn.wait_for_predecessor()  # whoever sees the note waits for the run that wrote it; so must this
        turn.remove(collected_key(digest))

    def _is_nobodys(self, digest: str) -> bool:
        witness = self._read_mark(digest)
        return witness is not None and not _versions(mark_key(digest), witness)

    def _mark(self, digests: Iterable[str], contents: Contents, turn: Turn) -> list[File]:
        def write(file: File) -> File:
            mark = Mark(
                digest_of_file=file.digest,
                size=file.size,
                versions=file.versions,
                reason=_reason(file, self._retention),
                run=turn.number,
                actor=self._registry.actor,
                at=turn.now(),
                op_id=uuid.uuid4().hex,
            )
            self._store.put_if_absent(mark_key(file.digest), mark.encode())
            return file

        return list(in_order(write, self._named(digests, contents), readers=self._readers))

    # --- deleting ---------------------------------------------------------------------------------

    def _due(self, digests: Iterable[str], contents: Contents) -> list[tuple[File, bytes]]:
        """Marked files whose mark, when it was read, was still the old one that the listing showed."""
        marked = self._marked(digests, contents)
        listed = digests_below(self._store.list(MARKS), MARK_SUFFIX) if marked else {}
        return [
            (file, witness)
            for file, witness in marked
            if file.digest in listed and listed[file.digest].modified_at == file.marked_at
        ]

    def _collect(self, due: list[tuple[File, bytes]], turn: Turn, report: Report, read_at: float) -> None:
        total = sum(file.size for file, _ in due)
        done = 0
        kept: set[str] = set()
        for file, witness in due:
            turn.wait_for_predecessor()
            if self._monotonic() - read_at > REREAD_AFTER:
                kept = self._kept_now(turn)
                read_at = self._monotonic()
            if file.digest not in kept and self._delete(file, witness, turn):
                report.collected.append(file)
            else:
                report.spared += 1
            done += file.size
            self._observer.deleting(done, total)

    def _kept_now(self, turn: Turn) -> set[str]:
        contents = sort_contents(
            listed for prefix in (keys.MODELS, keys.CONSUMERS) for listed in self._store.list(prefix)
        )
        return {reference.digest for reference in self._references(contents, turn.now())}

    def _delete(self, file: File, witness: bytes, turn: Turn) -> bool:
        """Delete a file unless someone spares it first; the order is what makes that safe.

        The note of collection is written before the mark is read again, and whoever spares a file takes the
        mark away before looking for that note: at least one of the two sees the other.
        """
        turn.require()
        self._store.put(collected_key(file.digest), witness)
        # of a run that was stopped meanwhile neither the look at the mark nor the turn is worth anything
        if self._read_mark(file.digest) != witness or not turn.is_proved:
            turn.require()
            # where the file is gone, an earlier run finished with it meanwhile, and the note stays
            if find_file(self._store, file.digest) is not None:
                turn.remove(collected_key(file.digest))
            return False
        self._store.delete(keys.blob(file.digest))
        if not file.versions:  # nobody will ask what became of it
            turn.remove(collected_key(file.digest))
        turn.remove(mark_key(file.digest))
        return True

    # --- what is no file --------------------------------------------------------------------------

    def _chaff(self, contents: Contents, now: datetime) -> tuple[list[str], list[str], list[str]]:
        refusals = [
            key
            for ledger in contents.refusals.values()
            for key in old_refusals(ledger, self._retention, now=now)
        ]
        return gone(contents.heartbeats.values(), now=now), gone(contents.probes, now=now), refusals

    def _count_chaff(self, report: Report, contents: Contents, now: datetime) -> None:
        report.heartbeats, report.probes, report.refusals = map(len, self._chaff(contents, now))

    def _delete_chaff(self, report: Report, contents: Contents, turn: Turn) -> None:
        now = turn.now()
        self._count_chaff(report, contents, now)
        for chaff in self._chaff(contents, now):
            for key in chaff:
                turn.remove(key)


def _file(file: Listed, mark: Listed, witness: bytes) -> File:
    digest = f"sha256:{file.key.rpartition('/')[2]}"
    return File(digest, file.size, _versions(mark.key, witness), mark.modified_at)


def _versions(key: str, witness: bytes) -> tuple[str, ...]:
    try:
        return Mark.decode(witness, key=key).versions
    except UntrustedAnswerError:  # it marks all the same; whose file it is is not known
        return ("?",)


def _newest_first(contents: Contents) -> Iterator[tuple[str, int]]:
    places = [(model, version) for model, log in contents.versions.items() for version in log]
    return iter(sorted(places, key=lambda place: -place[1]))


def _reason(file: File, retention: Retention) -> str:
    if not file.versions:
        return "no version has this file: a publish was cut off"
    return (
        f"no channel refers to it within {retention.rollback_depth} entries, no consumer serves it, "
        f"and it is not among the newest {retention.keep_versions} versions"
    )
