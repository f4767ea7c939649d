"""Where a function's model comes from, as its plan says it to the workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ferryline.flink_scoring.sql.config import FunctionSpec
from ferryline.flink_scoring.sql.kinds import Signature
from ferryline.flink_scoring.sql.naming import ObjectName
from ferryline.registry.signing.policy import SignaturePolicy


@dataclass(frozen=True, slots=True)
class FollowedSource:
    """A channel: a promotion changes what scores while the query runs.

    Attributes:
        store: URL of the registry's store; credentials come from the worker's own environment.
        model: the model.
        channel: its channel.
        signatures: `required` where whoever plans the query requires them.
    """

    store: str
    model: str
    channel: str
    signatures: SignaturePolicy | None = None


@dataclass(frozen=True, slots=True)
class VersionSource:
    """A version, by its number and the digest of its manifest; the rest as for a channel."""

    store: str
    model: str
    version: int
    manifest_digest: str
    signatures: SignaturePolicy | None = None


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file, by its digest.

    Attributes:
        digest: of the file that the query was planned with.
        place: where the worker reads it: a path of its machine, or an object.
        data: the file itself where it is small enough to travel with the query; None to read it there.
    """

    digest: str
    place: Path | ObjectName
    data: bytes | None = field(default=None, repr=False)


Source = FollowedSource | VersionSource | FileSource


@dataclass(frozen=True, slots=True)
class PlannedFunction:
    """All that a worker must know; pickled with the query."""

    signature: Signature
    spec: FunctionSpec
    source: Source

    @property
    def is_deterministic(self) -> bool:
        """Whether the same arguments always give the same result; those of a channel change with it."""
        return not isinstance(self.source, FollowedSource)
