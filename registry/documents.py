"""The documents of the registry as typed, versioned schemas, and their one canonical encoding.

A document is immutable once written. Fields this version does not know are kept, so that an older
program can carry a newer document; a document of another major version is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

import orjson
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from registry.digests import digest_of, hex_of
from registry.errors import CorruptDocumentError, UnknownSchemaError, UsageError

SCHEMA_MAJOR = 1
SCHEMA_VERSION = f"{SCHEMA_MAJOR}.0"
_SCHEMA_FORM = re.compile(r"([0-9]{1,9})(?:\.|$)")


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


class Record(BaseModel):
    """A part of a document: immutable, and it keeps fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="allow", ser_json_inf_nan="null")


class Document(Record):
    """A whole object of the registry, with its schema version and its canonical bytes."""

    kind: ClassVar[str] = "document"
    schema_version: str = SCHEMA_VERSION

    _stored_digest: str | None = PrivateAttr(default=None)

    @property
    def digest(self) -> str:
        """The digest of the bytes that lie in the store (of the canonical ones, before it was stored)."""
        return self._stored_digest or digest_of(self.encode())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy; it is a document of its own, so the digest of the stored bytes is not copied."""
        copy = super().model_copy(update=update, deep=deep)
        copy._stored_digest = None  # noqa: SLF001 - its own class
        return copy

    def encode(self) -> bytes:
        """The canonical bytes: UTF-8 JSON, keys sorted, no white space (RFC 8259; digests cover these).

        Raises:
            UsageError: a text is not UTF-8, or an integer is beyond 64 bits.
        """
        try:
            return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)
        except (TypeError, ValueError) as error:  # orjson's and pydantic's errors for what JSON cannot hold
            raise UsageError(f"this {self.kind} cannot be written as JSON: {error}") from error

    @classmethod
    def decode(cls, data: bytes, *, key: str) -> Self:
        """Read a document that lies under `key` in the store.

        Raises:
            UnknownSchemaError: its major schema version is not this program's.
            CorruptDocumentError: it is not JSON, or not a document of this kind.
        """
        try:
            raw = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise CorruptDocumentError(
                f"{key} is not JSON ({error}); restore the object or remove it"
            ) from error
        if not isinstance(raw, dict):
            raise CorruptDocumentError(f"{key} is not a JSON object but {type(raw).__name__}")
        _require_known_major(raw.get("schema_version"), key=key, kind=cls.kind)
        try:
            document = cls.model_validate_json(data)
        except ValidationError as error:
            raise CorruptDocumentError(f"{key} is no {cls.kind}: {_first_fault(error)}") from error
        document._stored_digest = digest_of(data)  # noqa: SLF001 - its own class
        return document


def _require_known_major(found: Any, *, key: str, kind: str) -> None:
    match = _SCHEMA_FORM.match(found) if isinstance(found, str) else None
    if match is None:
        raise CorruptDocumentError(f"{key} is no {kind}: it has no schema_version")
    if match[1] != str(SCHEMA_MAJOR):
        raise UnknownSchemaError(
            f"{key} is a {kind} of schema version {found}; this program reads {SCHEMA_MAJOR}.x: "
            "upgrade modelferry here, or publish with the older one"
        )


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in fault['loc']) or 'document'}: {fault['msg']}"


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


class Lineage(Record):
    """What the model had learnt from when it was exported."""

    topic: str
    offsets: tuple[OffsetRange, ...]
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


class Manifest(Document, ModelFacts, TrainingRecord):
    """One version of a model: its file, the facts of the file, and where it comes from.

    `signature` is empty until keys are configured.
    """

    kind: ClassVar[str] = "manifest"

    model: str
    version: int = Field(ge=1)
    created_at: AwareDatetime
    actor: str
    op_id: str
    blob: Blob
    signature: str | None = None


class Operation(StrEnum):
    """Why a channel got a new entry."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    HOLD = "hold"
    RELEASE = "release"


class ChannelEntry(Document):
    """One generation of a channel.

    `previous` is the digest of the entry before it, none for the first; `contract_change` says that someone
    allowed this version to take other inputs or give other outputs than the one before.
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
    signature: str | None = None


class ServedModelReport(Record):
    """What a consumer serves of one channel, and the last thing that went wrong with it."""

    model: str
    channel: str
    phase: str
    generation: int | None = None
    version: int | None = None
    digest: Digest | None = None
    since: AwareDatetime | None = None
    last_error: str | None = None
    refused_generation: int | None = None
    refused_gate: str | None = None


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
