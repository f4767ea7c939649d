"""What manifests and channel entries must keep, by themselves and towards each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ferryline.registry.audit.findings import BACKUP, Audit, Severity
from ferryline.registry.audit.reader import Read
from ferryline.registry.documents import Canary, ChannelEntry, Manifest
from ferryline.registry.errors import RefusedError

Judge = Callable[[Manifest | ChannelEntry], None]
"""Raises RefusedError where a document's signature cannot be trusted."""


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """What is remembered of a manifest: its digest, and its file's."""

    manifest_digest: str
    blob_digest: str
    size: int


def report_holes(audit: Audit, prefix: str, numbers: Iterable[int]) -> None:
    """Put down which numbers below the highest are missing from a log, a run of them as one."""
    expected = 1
    for number in sorted(numbers):
        if number > expected:
            last = number - 1
            what = f"{expected} is missing" if last == expected else f"{expected} to {last} are missing"
            audit.add(
                Severity.DAMAGED,
                prefix,
                f"the log has a hole: {what}, and {number} is there",
                BACKUP,
            )
        expected = number + 1


def check_manifests(
    audit: Audit, model: str, reads: Iterable[Read[Manifest]], judge: Judge
) -> dict[int, KnownVersion | None]:
    """Put down what is wrong with a model's manifests; what is known of each, None where nothing is."""
    known: dict[int, KnownVersion | None] = {}
    for read in reads:
        audit.versions += 1
        known[read.number] = None
        manifest = read.document
        if manifest is None:
            _unreadable(audit, read)
        elif (manifest.model, manifest.version) != (model, read.number):
            _misplaced(audit, read.key, f"{manifest.model}@{manifest.version}")
        else:
            _judge(audit, read.key, manifest, judge)
            known[read.number] = KnownVersion(manifest.digest, manifest.blob.digest, manifest.blob.size)
    return known


def check_channel(
    audit: Audit,
    model: str,
    channel: str,
    reads: Iterable[Read[ChannelEntry]],
    versions: Mapping[int, KnownVersion | None],
    judge: Judge,
) -> ChannelEntry | None:
    """Put down what is wrong with a channel's entries, which come in their order; the newest of them."""
    previous: ChannelEntry | None = None
    newest: ChannelEntry | None = None
    for read in reads:
        audit.entries += 1
        entry = read.document
        if entry is None:
            _unreadable(audit, read)
        elif (entry.model, entry.channel, entry.generation) != (model, channel, read.number):
            place = f"generation {entry.generation} of {entry.model}:{entry.channel}"
            _misplaced(audit, read.key, place)
            entry = None
        else:
            _check_link(audit, read.key, previous, entry)
            for fault in _faults(entry, versions):
                audit.add(Severity.DAMAGED, read.key, fault, _DISTRUST)
            _judge(audit, read.key, entry, judge)
        previous = newest = entry
    if newest is not None and newest.signature is None:
        _judge_head(audit, f"{model}:{channel}", newest, judge)
    return newest


_DISTRUST = "the log was altered: restore it from a backup, and change the credentials that can write to it"


def _check_link(audit: Audit, key: str, previous: ChannelEntry | None, entry: ChannelEntry) -> None:
    if entry.generation == 1:
        wrong = entry.previous is not None
    else:  # beside a hole or a damaged entry nothing can be compared
        follows = previous is not None and previous.generation == entry.generation - 1
        wrong = follows and previous is not None and entry.previous != previous.digest
    if wrong:
        audit.add(
            Severity.DAMAGED,
            key,
            f"the chain is forked: generation {entry.generation} does not name the entry that lies before it",
            _DISTRUST,
        )


def _faults(entry: ChannelEntry, versions: Mapping[int, KnownVersion | None]) -> Iterator[str]:
    yield from _version_faults(entry, "", versions)
    if entry.canary is not None:
        yield from _version_faults(entry.canary, "as its canary ", versions)
    if entry.undoes_to is not None and entry.undoes_to >= entry.generation:
        yield f"it says that undoing it leads forwards, to generation {entry.undoes_to}"


def _version_faults(
    named: ChannelEntry | Canary, how: str, versions: Mapping[int, KnownVersion | None]
) -> Iterator[str]:
    if named.version not in versions:
        yield f"it names {how}version {named.version}, which is not there"
        return
    known = versions[named.version]
    if known is None:  # a finding of its own
        return
    if named.manifest_digest != known.manifest_digest:
        yield f"it names {how}version {named.version} with another manifest than the one that is there"
    if named.blob_digest != known.blob_digest:
        yield f"it names {how}version {named.version} with another file than its manifest does"


def _judge(audit: Audit, key: str, document: Manifest | ChannelEntry, judge: Judge) -> None:
    try:
        judge(document)
    except RefusedError as error:
        # what was written before there were keys stays unsigned for ever, and only a head is asked for one
        severity = Severity.WARNING if document.signature is None else Severity.DAMAGED
        audit.add(severity, key, error.reason, error.remedy)


def _judge_head(audit: Audit, where: str, head: ChannelEntry, judge: Judge) -> None:
    try:
        judge(head)
    except RefusedError:
        audit.add(
            Severity.DAMAGED,
            where,
            f"its newest entry, generation {head.generation}, is not trusted: no consumer will serve it",
            "promote a version with a key that is trusted; --force puts it over this one",
        )


def _unreadable(audit: Audit, read: Read[Manifest] | Read[ChannelEntry]) -> None:
    fault = read.fault or f"{read.key} was deleted since it was listed"
    audit.add(Severity.DAMAGED, read.key, fault, BACKUP)


def _misplaced(audit: Audit, key: str, described: str) -> None:
    audit.add(Severity.DAMAGED, key, f"it describes {described} and lies in a wrong place", BACKUP)
