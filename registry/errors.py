"""What can go wrong in the registry, as one tree.

    FerryError
    ├── UsageError              the caller's words or configuration are wrong
    ├── NotFoundError           no such model, version or channel
    ├── ConflictError           the expectation did not hold, someone else was first
    ├── RefusedError            a gate refused a model
    ├── ChannelHeldError        the channel is held against promotions
    ├── WaitTimeoutError        consumers did not reach a generation in time
    ├── UnreachableError        another server that is needed does not answer, or will not
    └── StoreError              the store cannot be reached, or its answer cannot be trusted
        ├── StoreUnreachableError   no answer, or an answer that says "try later"
        ├── StoreDeniedError        wrong credentials, missing rights, no such bucket
        │   └── MissingRightError       good credentials that may not do this one thing
        ├── OutcomeUnknownError     a write was sent and nothing tells whether it was kept
        └── UntrustedAnswerError    an answer that breaks the log's promises
            ├── CorruptDocumentError    bytes that are no document of their kind
            ├── UnknownSchemaError      a document of a newer major schema version
            ├── DigestMismatchError     bytes that are not what their digest says
            └── BrokenChainError        an entry that does not follow from the one before

Errors know nothing of exit codes or status codes; each front end maps them.
"""

from __future__ import annotations

__all__ = [
    "BrokenChainError",
    "ChannelHeldError",
    "ConflictError",
    "CorruptDocumentError",
    "DigestMismatchError",
    "FerryError",
    "MissingRightError",
    "NotFoundError",
    "OutcomeUnknownError",
    "RefusedError",
    "StoreDeniedError",
    "StoreError",
    "StoreUnreachableError",
    "UnknownSchemaError",
    "UnreachableError",
    "UntrustedAnswerError",
    "UsageError",
    "WaitTimeoutError",
]


class FerryError(Exception):
    """Root of every error this project raises on purpose; its text is fit for a user."""


class UsageError(FerryError):
    """A name, a flag or a setting is not of the form it must have."""


class NotFoundError(FerryError):
    """The model, version or channel that was asked for is not in the registry."""


class ConflictError(FerryError):
    """Another writer was first, or the channel is not where the caller expected it."""


class RefusedError(FerryError):
    """A gate refused a model.

    Args:
        gate: the gate's name, for scripts (`digest`, `contract`, `golden-rows`, …).
        reason: what the gate found.
        remedy: what the owner of the model can do about it.
    """

    def __init__(self, gate: str, reason: str, remedy: str) -> None:
        super().__init__(f"refused by gate '{gate}': {reason}. {remedy}")
        self.gate = gate
        self.reason = reason
        self.remedy = remedy


class ChannelHeldError(FerryError):
    """The channel is held, so that an automatic promotion cannot undo a human's decision."""


class WaitTimeoutError(FerryError):
    """The deadline passed before every live consumer reported the generation."""


class UnreachableError(FerryError):
    """A server that is needed, other than the store, does not answer or will not do what is asked."""


class StoreError(FerryError):
    """The object store cannot be reached, or its answer cannot be trusted."""


class StoreUnreachableError(StoreError):
    """The store gave no answer, or said to come back later; a retry may succeed."""


class StoreDeniedError(StoreError):
    """The store answered that it will not: wrong credentials, missing rights, no such bucket."""


class MissingRightError(StoreDeniedError):
    """The store knows these credentials, and they may not do this.

    Args:
        store: where it lies.
        right: what is missing, as the store's own policies say it: `s3:PutObject on bucket/key`.
    """

    def __init__(self, store: str, right: str) -> None:
        super().__init__(
            f"{store} does not let these credentials do that: they lack {right}. Use others, or have it "
            "granted; `ferry doctor` shows what these may do"
        )
        self.right = right


class OutcomeUnknownError(StoreError):
    """A write was sent and the store has not told whether it was kept."""


class UntrustedAnswerError(StoreError):
    """The store answered, and the answer breaks a promise of the log."""


class CorruptDocumentError(UntrustedAnswerError):
    """An object's bytes are not a document of the kind that its key says."""


class UnknownSchemaError(UntrustedAnswerError):
    """A document was written by a newer Ferryline, in a schema this one cannot read."""


class DigestMismatchError(UntrustedAnswerError):
    """An object's bytes do not have the digest they are recorded under."""


class BrokenChainError(UntrustedAnswerError):
    """A log entry is missing, or does not name the entry before it."""
