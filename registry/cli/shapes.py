"""What each command prints with `-o json`, as types: the documents and the tests are made from them.

No command imports this; what it prints is checked against these shapes by the tests.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from ferryline.registry.diff import VersionDiff
from ferryline.registry.documents import ChannelEntry, Manifest, ServedModelReport
from ferryline.registry.refusals import RefusalRecord


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Published(_Shape):
    """The new version, and the channel's entry where it was promoted."""

    manifest: Manifest
    entry: ChannelEntry | None


class Pulled(_Shape):
    """A file that was written."""

    model: str
    version: int
    digest: str = Field(description="of the file, `sha256:<hex>`; it was checked")
    size: int = Field(description="bytes")
    file: str


class Changed(ChannelEntry):
    """The entry that was written, or would be."""

    dry_run: bool = Field(description="whether nothing was written")


class ModelLine(_Shape):
    """A model."""

    model: str
    newest_version: int
    channels: dict[str, ChannelEntry | None] = Field(
        description="the newest entry of each; null where it cannot be read"
    )


class Shown(Manifest):
    """A version."""

    serves: list[str] = Field(description="the channels that serve it, be it as a canary")


class StatusLine(ServedModelReport):
    """What one consumer serves of one channel."""

    consumer: str
    role: str
    host: str
    pid: int
    at: AwareDatetime = Field(description="when it was last heard of")
    live: bool = Field(description="false once it has been silent for three of its intervals")
    generations_behind: int | None = Field(
        description="null where the channel cannot be read, or does not have what it serves"
    )


class EntryEvent(_Shape):
    """A channel got a new entry."""

    at: AwareDatetime
    event: Literal["entry"]
    entry: ChannelEntry


class ConsumerEvent(_Shape):
    """A consumer came, left, or serves something else."""

    at: AwareDatetime
    event: Literal["consumer"]
    consumer: str
    model: str
    channel: str
    state: str = Field(description="its phase; `gone` when it fell silent, `left` when it said goodbye")
    version: int | None = None
    generation: int | None = None
    generations_behind: int | None = None
    last_error: str | None = None


class ChannelEvent(_Shape):
    """A channel was found to be damaged, or can be read again."""

    at: AwareDatetime
    event: Literal["channel"]
    model: str
    channel: str
    readable: bool
    fault: str | None


class StoreEvent(_Shape):
    """The store stopped answering, or answers again."""

    at: AwareDatetime
    event: Literal["store"]
    reachable: bool
    fault: str | None


class Probe(_Shape):
    """What one probe of the store found."""

    probe: str
    outcome: str
    detail: str


class Right(_Shape):
    """Whether these credentials may do something."""

    right: str
    held: bool | None = Field(description="null where it could not be told")
    needed: bool | None = Field(description="whether the role needs it; null without `--as`")
    detail: str


class Examined(_Shape):
    """What is true of a store."""

    store: str
    findings: list[Probe]
    role: str | None
    rights: list[Right]


class Key(_Shape):
    """A key for signatures."""

    key_id: str
    name: str
    created: AwareDatetime | None
    not_after: AwareDatetime | None = Field(description="what it signs later is refused; null for never")
    ended: bool = Field(description="whether that is over")


class NewKey(Key):
    """A key pair that was made."""

    private_key: str = Field(description="its file")
    public_key: str = Field(description="its file")


class TrustedFile(Key):
    """A key that is trusted here."""

    file: str


class KeyList(_Shape):
    """Who is trusted here."""

    policy: str
    signs_with: str | None = Field(description="the id of the key that signs here")
    trusted: list[TrustedFile]


class GarbageFile(_Shape):
    """A model file that nothing needs."""

    digest: str
    size: int = Field(description="bytes")
    versions: list[str] = Field(
        description="the versions that have it, as far as they were looked for; none: a publish was cut off"
    )
    marked_at: AwareDatetime | None = Field(description="since when it is garbage; null for what is new")


class Garbage(_Shape):
    """What garbage collection did, or would do."""

    store: str
    dry_run: bool = Field(description="whether nothing was written")
    collected: list[GarbageFile] = Field(description="deleted")
    marked: list[GarbageFile] = Field(description="found to be garbage; a later run deletes it")
    waiting: list[GarbageFile] = Field(description="marked earlier, but not for the grace period yet")
    bytes_collected: int
    bytes_marked: int
    bytes_waiting: int
    files_spared: int = Field(description="were marked, and are needed again or about to be")
    files_kept: int
    bytes_kept: int
    heartbeats: int = Field(description="removed, of consumers that are gone")
    probes: int = Field(description="removed, left over from `ferry doctor`")
    refusals: int = Field(description="removed from the ledger for their age or number")


class AuditFinding(_Shape):
    """One thing that is wrong, or worth knowing."""

    severity: Literal["damaged", "warning", "note"] = Field(description="`damaged` makes the exit code 6")
    where: str = Field(description="the key of the object, or the prefix of the log")
    what: str
    remedy: str


class Verified(_Shape):
    """What a walk over everything found."""

    store: str
    model: str | None = Field(description="the one that was looked at; null for all")
    clean: bool = Field(description="whether nothing is damaged")
    models: int
    versions: int
    entries: int
    files: int
    bytes: int = Field(description="of the files that were read")
    findings: list[AuditFinding]


SHAPES: dict[str, Any] = {
    "publish": Published,
    "pull": Pulled,
    "promote": Changed,
    "rollback": Changed,
    "hold": Changed,
    "release": Changed,
    "list": list[ModelLine],
    "list MODEL": list[Manifest],
    "show": Shown,
    "history": list[ChannelEntry],
    "diff": VersionDiff,
    "status": list[StatusLine],
    "watch": EntryEvent | ConsumerEvent | ChannelEvent | StoreEvent,
    "doctor": Examined,
    "gc": Garbage,
    "verify": Verified,
    "refusals": list[RefusalRecord],
    "keygen": NewKey,
    "keys": KeyList,
}
"""What `ferry COMMAND -o json` prints: one document, for `watch` one a line."""
