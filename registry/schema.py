"""What every document of the registry has in common: its schema version and its one canonical encoding.

A document is immutable once written. Fields this version does not know are kept, so that an older
program can carry a newer document; a document of another major version is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import orjson
from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from ferryline.registry.digests import digest_of
from ferryline.registry.errors import CorruptDocumentError, UnknownSchemaError, UsageError

SCHEMA_MAJOR = 1
SCHEMA_VERSION = f"{SCHEMA_MAJOR}.0"
_SCHEMA_FORM = re.compile(r"([0-9]{1,9})(?:\.|$)")


class Record(BaseModel):
    """A part of a document: immutable, and it keeps fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="allow", ser_json_inf_nan="null")


class Document(Record):
    """A whole object of the registry, with its schema version and its canonical bytes."""

    kind: ClassVar[str] = "document"
    schema_version: str = SCHEMA_VERSION

    _stored_digest: str | None = PrivateAttr(default=None)
    _signed_bytes: bytes | None = PrivateAttr(default=None)

    @property
    def digest(self) -> str:
        """The digest of the bytes that lie in the store (of the canonical ones, before it was stored)."""
        return self._stored_digest or digest_of(self.encode())

    @property
    def stored_bytes(self) -> bytes:
        """The bytes of a signed document as they lie in the store; of any other, its canonical ones.

        Decoding and encoding again may change them: this program writes fields an older one did not know.
        """
        return self._signed_bytes or self.encode()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy; it is a document of its own, so what is known of the stored bytes is not copied."""
        copy = super().model_copy(update=update, deep=deep)
        copy._stored_digest = copy._signed_bytes = None  # noqa: SLF001 - its own class
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
        if raw.get("signature") is not None:
            document._signed_bytes = data  # noqa: SLF001 - likewise
        return document


def _require_known_major(found: Any, *, key: str, kind: str) -> None:
    match = _SCHEMA_FORM.match(found) if isinstance(found, str) else None
    if match is None:
        raise CorruptDocumentError(f"{key} is no {kind}: it has no schema_version")
    if match[1] != str(SCHEMA_MAJOR):
        raise UnknownSchemaError(
            f"{key} is a {kind} of schema version {found}; this program reads {SCHEMA_MAJOR}.x: "
            "upgrade ferryline here, or publish with the older one"
        )


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in fault['loc']) or 'document'}: {fault['msg']}"
