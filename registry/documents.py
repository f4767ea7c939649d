"""The documents of the registry: manifests, channel entries, heartbeats, and what they are made of."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from ferryline.registry.digests import hex_of
from ferryline.registry.errors import UsageError
from ferryline.registry.schema import Document, Record


def _as_digest(value: str) -> str:
    try:
        hex_of(value)
    except UsageError as error:
        raise ValueError(str(error)) from error
    return value


Digest = Annotated[str, AfterValidator(_as_digest)]
Label = bool | int | str
Dtype = Literal[
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
    "float16", "float32", "float64", "string",
]  # fmt: skip


def utc_now() -> datetime:
    """The present moment, timezone-aware; the default clock of everything that stamps a document."""
    return datetime.now(UTC)


# --- what a model is ------------------------------------------------------------------------------


class Role(StrEnum):
    """What an output means; a score is a decision value that is no probability."""

    LABEL = "label"
    PROBABILITY = "probability"
    SCORE = "score"


class TensorSpec(Record):
    """One input or output: its shape has -1 where a dimension is free (the batch comes first)."""

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    role: Role | None = None


class ModelFacts(Record):
    """What can be read from an ONNX file without running it."""

    opset: int
    ir_version: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    classes: tuple[Label, ...] | None = None
    producer: str = ""


class GoldenRows(Record):
    """Inputs with the outputs they must give, by tensor name, as nested lists with the batch first."""

    inputs: dict[str, list[Any]]
    outputs: dict[str, list[Any]]
    absolute_tolerance: float = Field(default=1e-4, ge=0)


# --- where a model comes from ---------------------------------------------------------------------


class OffsetRange(Record):
    """Records of one partition: from `first` up to, not including, `end`."""

    partition: int = Field(ge=0)
    first: int = Field(ge=0)
    end: int = Field(ge=0)


class PastOffsets(OffsetRange):
    """Records that were learnt and are gone: of a topic that had the name before, or cut by the broker."""

    topic_id: str | None = None


class Lineage(Record):
    """What the model had learnt from when it was exported.

    `offsets` are of the topic that `topic_id` names (none where no broker told it), and `past` is what was
    learnt before them, oldest first.
    """

    topic: str
    topic_id: str | None = None
    offsets: tuple[OffsetRange, ...]
    past: tuple[PastOffsets, ...] = ()
    records: int = Field(ge=0)
    skipped: int = Field(default=0, ge=0)
    newest_event_time: AwareDatetime | None = None


class ParityReport(Record):
    """How far the ONNX file and the estimator it was made from agreed on recent rows."""

    rows: int = Field(ge=1)
    label_mismatches: int = Field(ge=0)
    max_score_difference: float = Field(ge=0)
    tolerance: float = Field(ge=0)
    dtype: Dtype


class Evaluation(Record):
    """Prequential metrics over the last `window` records, and the parity of the export."""

    metrics: dict[str, float] = Field(default_factory=dict)
    window: int | None = None
    parity: ParityReport | None = None


class TrainingRecord(Record):
    """All that a publisher knows beyond the file itself; every field may be missing."""

    framework: str | None = None
    estimator: str | None = None
    lineage: Lineage | None = None
    evaluation: Evaluation | None = None
    golden: GoldenRows | None = None
    parent_version: int | None = None
    labels: dict[str, str] = Field(default_factory=dict)


# --- the documents --------------------------------------------------------------------------------


class Blob(Record):
    """A file of the store, named by its digest."""

    digest: Digest
    size: int = Field(ge=0)


class Signature(Record):
    """Who vouches for a document: `value` is base64, over the domain tag and all fields but this one.

    The signature does not cover itself, so all three fields and no other must be written, or it is refused.
    """

    key_id: str
    algorithm: Literal["ed25519"] = "ed25519"
    value: str


class Manifest(Document, ModelFacts, TrainingRecord):
    """One version of a model: its file, the facts of the file, and where it comes from."""

    kind: ClassVar[str] = "manifest"

    model: str
    version: int = Field(ge=1)
    created_at: AwareDatetime
    actor: str
    op_id: str
    blob: Blob
    signature: Signature | None = None


class Operation(StrEnum):
    """Why a channel got a new entry."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    HOLD = "hold"
    RELEASE = "release"


class Canary(Record):
    """A second version that serves `percent` of a channel's records or requests, chosen by their keys."""

    version: int = Field(ge=1)
    blob_digest: Digest
    manifest_digest: Digest
    percent: float = Field(gt=0, lt=100)


class ChannelEntry(Document):
    """One generation of a channel.

    `previous` is the digest of the entry before it, none for the first; `undoes_to` is the generation whose
    version a rollback of this entry leads to, none where nothing served before; `contract_change` says that
    someone allowed this version to take other inputs or give other outputs than the one before; after
    `expires_at` a consumer warns that nobody vouched for the channel's freshness.
    """

    kind: ClassVar[str] = "channel entry"

    model: str
    channel: str
    generation: int = Field(ge=1)
    version: int = Field(ge=1)
    blob_digest: Digest
    manifest_digest: Digest
    operation: Operation
    held: bool = False
    automatic: bool = False
    contract_change: bool = False
    actor: str
    reason: str = ""
    at: AwareDatetime
    op_id: str
    previous: Digest | None
    undoes_to: int | None = Field(default=None, ge=1)
    canary: Canary | None = None
    expires_at: AwareDatetime | None = None
    signature: Signature | None = None


class ServedModelReport(Record):
    """What a consumer serves of one channel, and the last thing that went wrong with it.

    `failures` counts how often in a row it failed to take up what is new, last for `last_error`;
    `answered` counts records or requests by version since the consumer started; `polled_at` is when it last
    learnt how far the channel has come; `fresh_until` is until when someone vouched for the channel,
    none where nobody limits it. What serves is known by digests: `digest` and `canary_digest` are those of
    the model files, `entry_digest` that of the channel's entry, `refused_digest` and
    `refused_entry_digest` those of the file and the entry that were refused; consumers of earlier releases
    tell the first alone.
    """

    model: str
    channel: str
    phase: str
    generation: int | None = None
    version: int | None = None
    digest: Digest | None = None
    entry_digest: Digest | None = None
    since: AwareDatetime | None = None
    last_error: str | None = None
    failures: int = Field(default=0, ge=0)
    refused_generation: int | None = None
    refused_gate: str | None = None
    refused_digest: Digest | None = None
    refused_entry_digest: Digest | None = None
    canary_version: int | None = None
    canary_digest: Digest | None = None
    canary_percent: float | None = None
    answered: dict[str, int] = Field(default_factory=dict)
    polled_at: AwareDatetime | None = None
    fresh_until: AwareDatetime | None = None


class Heartbeat(Document):
    """What a consumer serves right now; rewritten every `interval_seconds`, stale after three of them."""

    kind: ClassVar[str] = "heartbeat"

    consumer: str
    role: str
    host: str
    pid: int
    started_at: AwareDatetime
    at: AwareDatetime
    interval_seconds: float = Field(gt=0)
    models: tuple[ServedModelReport, ...] = ()
