"""The registry as its users see it: models, versions, channels and consumers of one store."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

from ferryline.registry import garbage, keys
from ferryline.registry.channels import Channel
from ferryline.registry.consumers import Consumers
from ferryline.registry.documents import (
    ChannelEntry,
    Manifest,
    ModelFacts,
    Operation,
    TrainingRecord,
    utc_now,
)
from ferryline.registry.errors import DigestMismatchError, RefusedError, UntrustedAnswerError
from ferryline.registry.names import DEFAULT_CHANNEL, ModelReference, is_name, require_name
from ferryline.registry.refusals import Refusals
from ferryline.registry.rules import Change, require_expected
from ferryline.registry.signing.seal import UNSEALED, Seal
from ferryline.registry.stores import Store, open_store
from ferryline.registry.versions import Versions


def default_actor() -> str:
    """Who runs this program: `FERRY_ACTOR`, else user@host."""
    if actor := os.environ.get("FERRY_ACTOR"):
        return actor
    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):  # no name for this user id, as in many containers
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return f"{user}@{socket.gethostname()}"


class Registry:
    """A catalogue of models in `store`.

    Args:
        store: where it lies.
        actor: who is written down for what this object does; None takes `default_actor()`.
        clock: gives the time that entries are stamped with; ordering never depends on it.
        seal: signs what is written and judges what is trusted; by default neither.
    """

    def __init__(
        self,
        store: Store,
        *,
        actor: str | None = None,
        clock: Callable[[], datetime] = utc_now,
        seal: Seal = UNSEALED,
    ) -> None:
        self.store = store
        self.actor = actor or default_actor()
        self.consumers = Consumers(store)
        self._clock = clock
        self.seal = seal

    @classmethod
    def open(cls, url: str, *, actor: str | None = None) -> Registry:
        """The registry in the store that `url` names.

        Raises:
            UsageError: the URL is of no known form.
        """
        return cls(open_store(url), actor=actor)

    def versions(self, model: str) -> Versions:
        """The versions of `model`, which need not exist."""
        return Versions(self.store, model, clock=self._clock, seal=self.seal)

    def channel(self, model: str, name: str = DEFAULT_CHANNEL) -> Channel:
        """A channel of `model`, which need not exist."""
        return Channel(self.store, model, name, clock=self._clock, seal=self.seal)

    def refusals(self, model: str) -> Refusals:
        """The ledger of a model's refused candidates."""
        return Refusals(self.store, model, clock=self._clock)

    def models(self) -> list[str]:
        """The names of all models that have a version."""
        return [name for name in self._folders(keys.MODELS) if self._any(keys.versions(name))]

    def channels(self, model: str) -> list[str]:
        """The names of a model's channels."""
        return list(self._folders(keys.channels(require_name(model, what="model"))))

    def resolve(self, reference: ModelReference, *, trusted: bool = False) -> Manifest:
        """The manifest a reference means: the version named, else what its channel serves.

        Args:
            reference: what was named.
            trusted: whether it is to be used, so that the channel must name this very manifest and someone
                trusted must vouch for both; to look at it, nobody need.

        Raises:
            NotFoundError: there is no such model, version or channel.
            DigestMismatchError: it is to be used, and its manifest is not the one that the channel names.
            RefusedError: nobody trusted vouches for the version, or for what the channel serves (gate
                `signature`).
        """
        seal = self.seal if trusted else UNSEALED
        if reference.version is not None:
            manifest = self.versions(reference.model).get(reference.version)
        else:
            head = self.channel(reference.model, reference.channel_or_default).require_head()
            seal.require(head)
            manifest = self.versions(reference.model).get(head.version)
            if trusted:
                _require_named(manifest, head)
        seal.require(manifest)
        return manifest

    def publish(
        self, model: str, data: bytes, facts: ModelFacts, training: TrainingRecord | None = None
    ) -> Manifest:
        """Add a version of `model`; no channel changes. See `Versions.publish`."""
        return self.versions(model).publish(data, facts, training, actor=self.actor)

    def promote(
        self,
        model: str,
        version: int,
        channel: str = DEFAULT_CHANNEL,
        *,
        canary: float | None = None,
        expect: int | None = None,
        reason: str = "",
        automatic: bool = False,
        force: bool = False,
        allow_contract_change: bool = False,
        dry_run: bool = False,
    ) -> ChannelEntry:
        """Make `version` the one that `channel` serves, or a canary beside the one that it serves.

        Args:
            model: the model.
            version: one of its versions.
            channel: the channel to change.
            canary: the percentage of records and requests that `version` is to get; None for all of them.
            expect: the generation the channel must be at, 0 for none yet.
            reason: why, for the history.
            automatic: whether a program decides; a held channel refuses it, and one with a canary.
            force: pass a hold (and lift it); not for programs.
            allow_contract_change: let callers notice other inputs or outputs than before.
            dry_run: decide everything and write nothing; the entry that would be written is returned.

        Raises:
            NotFoundError: there is no such version.
            RefusedError: its contract is not that of the version it would replace (gate `contract`), or its
                file is gone (gate `blob`).
            ConflictError: someone else was first, or `expect` does not hold.
            ChannelHeldError: the channel is held.
        """
        change = Change(
            Operation.PROMOTE,
            version,
            canary_percent=canary,
            expect=expect,
            automatic=automatic,
            force=force,
            contract_change=allow_contract_change,
        )
        return self._change(model, channel, change, reason, dry_run=dry_run)

    def rollback(
        self,
        model: str,
        channel: str = DEFAULT_CHANNEL,
        *,
        to: int | None = None,
        expect: int | None = None,
        reason: str = "",
        dry_run: bool = False,
    ) -> ChannelEntry:
        """Go back to the version that served before, or to version `to`, and hold the channel there.

        While a canary runs, going back takes the canary back and leaves the version that serves the rest.

        What served this channel before may serve again, whatever its contract; any other version must have
        the contract of the one that serves.

        Raises:
            NotFoundError: nothing served before, or there is no version `to`.
            RefusedError: the file of the version is gone (gate `blob`); or `to` never served here, and its
                contract is another (gate `contract`).
            ConflictError: someone else was first, or `expect` does not hold.
        """
        target = self.channel(model, channel)
        head = target.require_head()
        require_expected(head, expect, channel=str(target))
        version = target.rollback_version(head) if to is None else to
        change = Change(Operation.ROLLBACK, version, expect=expect, contract_change=to is None)
        try:
            return self._write(target, head, change, reason, dry_run=dry_run)
        except RefusedError as error:
            # only a contract that differs is worth reading the history for
            if error.gate != "contract" or not _has_served(target, version):
                raise
        return self._write(target, head, replace(change, contract_change=True), reason, dry_run=dry_run)

    def hold(self, model: str, channel: str = DEFAULT_CHANNEL, *, reason: str = "") -> ChannelEntry:
        """Refuse automatic promotions of `channel` until it is released."""
        return self._change(model, channel, Change(Operation.HOLD), reason)

    def release(self, model: str, channel: str = DEFAULT_CHANNEL, *, reason: str = "") -> ChannelEntry:
        """Let automatic promotions pass again."""
        return self._change(model, channel, Change(Operation.RELEASE), reason)

    def _change(
        self, model: str, channel: str, change: Change, reason: str, *, dry_run: bool = False
    ) -> ChannelEntry:
        target = self.channel(model, channel)
        return self._write(target, target.head(), change, reason, dry_run=dry_run)

    def _write(
        self, target: Channel, head: ChannelEntry | None, change: Change, reason: str, *, dry_run: bool
    ) -> ChannelEntry:
        entry = target.draft(change, self.versions(target.model), actor=self.actor, reason=reason, head=head)
        if dry_run:
            return entry
        for digest, version in _newly_named(entry, head).items():
            garbage.secure(self.store, digest, what=f"{entry.model}@{version}")
        return target.append(entry)

    def _folders(self, prefix: str) -> Iterator[str]:
        # whatever else lies there is no model or channel, and must not keep the others from being listed
        return (name for name in self.store.folders(prefix) if is_name(name))

    def _any(self, prefix: str) -> bool:
        return next(iter(self.store.list(prefix)), None) is not None


def _require_named(manifest: Manifest, head: ChannelEntry) -> None:
    if (manifest.digest, manifest.blob.digest) != (head.manifest_digest, head.blob_digest):
        raise DigestMismatchError(
            f"the manifest of {head.model}@{head.version} is not the one that generation {head.generation} "
            f"of {head.model}:{head.channel} names: the store was altered or restored in part. "
            "Bring the manifest back from a backup, or promote a version that you trust"
        )


def _has_served(channel: Channel, version: int) -> bool:
    """Whether `version` is known to have served all of `channel` before."""
    try:
        return any(entry.version == version for entry in channel.history())
    except UntrustedAnswerError:  # nobody knows, so it is judged like any other version
        return False


def _newly_named(entry: ChannelEntry, head: ChannelEntry | None) -> dict[str, int]:
    """The files that `entry` names and `head` does not, with their versions; the others nobody collects."""
    named, before = ({} if each is None else _named(each) for each in (entry, head))
    return {digest: version for digest, version in named.items() if digest not in before}


def _named(entry: ChannelEntry) -> dict[str, int]:
    canary = entry.canary
    return {entry.blob_digest: entry.version} | ({canary.blob_digest: canary.version} if canary else {})
