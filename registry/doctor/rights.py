"""What these credentials may do in a registry, found out without changing anything in it.

Whether a key may be written is asked by writing there once more what lies there already: put-if-absent of
an entry's own bytes is refused where the right is held, and forbidden where it is not; and were the store
to cheat, it would replace the bytes by themselves. Whether a key may be deleted is asked with one that no log
will ever reach. So some rights can be told only once there is something to ask with.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from ferryline.registry import keys
from ferryline.registry.digests import digest_of
from ferryline.registry.doctor.findings import SCRATCH
from ferryline.registry.errors import FerryError, MissingRightError
from ferryline.registry.garbage import MARKS, mark_key
from ferryline.registry.names import require_name
from ferryline.registry.roles import Role
from ferryline.registry.stores.base import ObjectMissingError, Store

_NEVER_REACHED = "9" * keys.NUMBER_WIDTH
_NO_DIGEST = "sha256:" + "0" * 64
_SMALL = 4 * 1024 * 1024  # a larger model file is not fetched just to ask


class Right(StrEnum):
    """Something that one may do in a registry."""

    FIND_MODELS = "find models"
    READ_MODELS = "read models"
    READ_FILES = "read model files"
    ADD_FILES = "add model files"
    ADD_VERSIONS = "add versions"
    CHANGE_CHANNELS = "change channels"
    RECORD_REFUSALS = "record refusals"
    REWRITE_HINT = "rewrite the hint"
    SPARE = "spare files from collection"
    OVERWRITE = "overwrite what was written"
    DELETE = "delete what was written"
    HEARTBEAT = "write the heartbeat"
    READ_HEARTBEATS = "read heartbeats"
    PROBE = "probe the store"


_READING = {Right.FIND_MODELS, Right.READ_MODELS, Right.READ_FILES}
_ADDING = {
    Right.ADD_FILES,
    Right.ADD_VERSIONS,
    Right.CHANGE_CHANNELS,
    Right.RECORD_REFUSALS,
    Right.REWRITE_HINT,
    Right.SPARE,
    Right.PROBE,
}

NEEDED: dict[Role, frozenset[Right]] = {
    Role.TRAINER: frozenset(_READING | _ADDING),
    Role.CONSUMER: frozenset(_READING | {Right.HEARTBEAT}),
    Role.OPERATOR: frozenset(set(Right) - {Right.HEARTBEAT}),
}
"""What each role cannot do its work without."""


@dataclass(frozen=True, slots=True)
class RightFinding:
    """Whether a right is held.

    Attributes:
        right: the right.
        held: whether these credentials have it; None where that cannot be told.
        needed: whether the role needs it; None where no role was named.
        detail: how it was found, or what is missing.
    """

    right: Right
    held: bool | None
    needed: bool | None
    detail: str

    @property
    def missing(self) -> bool:
        """Whether the role's work will fail for want of it."""
        return bool(self.needed) and self.held is False

    @property
    def excess(self) -> bool:
        """Whether it is held and the role does not need it."""
        return self.needed is False and self.held is True


def look_at_rights(
    store: Store, *, role: Role | None = None, consumer: str | None = None
) -> list[RightFinding]:
    """Ask the store for each right.

    Args:
        store: the store, opened with the credentials in question.
        role: what they are meant for; says which rights are needed.
        consumer: the id whose heartbeat they are to write; None asks for any consumer's.

    Raises:
        UsageError: `consumer` can be no consumer's id.
    """
    if consumer is not None:
        require_name(consumer, what="consumer")
    questions = _Questions(store, consumer)
    return [_ask(right, ask, role) for right, ask in questions.all().items()]


def _ask(right: Right, ask: Callable[[], str], role: Role | None) -> RightFinding:
    needed = None if role is None else right in NEEDED[role]
    try:
        return RightFinding(right, held=True, needed=needed, detail=ask())
    except MissingRightError as error:
        return RightFinding(right, held=False, needed=needed, detail=f"lacks {error.right}")
    except _NothingToAskWithError as error:
        return RightFinding(right, held=None, needed=needed, detail=f"cannot be told before {error}")
    except FerryError as error:
        return RightFinding(right, held=None, needed=needed, detail=str(error))


class _NothingToAskWithError(Exception):
    """The registry holds no object of the kind yet."""


class _Questions:
    def __init__(self, store: Store, consumer: str | None) -> None:
        self._store = store
        self._consumer = consumer or f"doctor-{uuid.uuid4().hex}"

    def all(self) -> dict[Right, Callable[[], str]]:
        """A question for each right, in the order of the table."""
        versions, channels = "/versions/", "/channels/"
        return {
            Right.FIND_MODELS: self._find,
            Right.READ_MODELS: self._read_missing,
            Right.READ_FILES: lambda: self._read(self._file(), "a model file was read"),
            Right.ADD_FILES: lambda: self._add(self._file(), "a model file may be added"),
            Right.ADD_VERSIONS: lambda: self._add(self._entry(versions), "a manifest may be added"),
            Right.CHANGE_CHANNELS: lambda: self._add(self._entry(channels), "an entry may be added"),
            Right.RECORD_REFUSALS: lambda: self._add(self._entry("/refusals/"), "a refusal may be added"),
            Right.REWRITE_HINT: self._hint,
            Right.SPARE: self._spare,
            Right.OVERWRITE: self._overwrite,
            Right.DELETE: self._delete,
            Right.HEARTBEAT: self._heartbeat,
            Right.READ_HEARTBEATS: self._heartbeats,
            Right.PROBE: self._probe,
        }

    def _find(self) -> str:
        return f"{sum(1 for _ in self._store.folders(keys.MODELS))} models are listed"

    def _read_missing(self) -> str:
        try:
            self._store.get(f"{keys.MODELS}doctor/versions/{_NEVER_REACHED}.json")
        except ObjectMissingError:
            return "what is missing is said to be missing"
        return "a manifest was read"

    def _read(self, key: str, said: str) -> str:
        self._store.get(key)
        return said

    def _add(self, key: str, said: str) -> str:
        self._store.put_if_absent(key, self._store.get(key).data)
        return said

    def _hint(self) -> str:
        try:
            hint = self._store.get(keys.HINT)
        except ObjectMissingError as error:
            raise _NothingToAskWithError("the first version is published") from error
        self._store.put_if_unchanged(keys.HINT, hint.data, hint.etag)
        return "the hint was rewritten as it is"

    def _overwrite(self) -> str:
        key = self._file()
        data = self._store.get(key).data
        if keys.blob(digest_of(data)) != key:
            raise _NothingToAskWithError(f"the damaged file {key} is published again")
        self._store.put(key, data)
        return "a model file may be overwritten (it was, by itself)"

    def _delete(self) -> str:
        model = next(iter(self._store.folders(keys.MODELS)), "doctor")
        self._store.delete(f"{keys.versions(model)}{_NEVER_REACHED}.json")
        return "entries may be deleted (none was)"

    def _spare(self) -> str:
        next(iter(self._store.list(MARKS)), None)
        self._store.delete(mark_key(_NO_DIGEST))
        return "marks of garbage may be listed and taken away"

    def _heartbeat(self) -> str:
        key = keys.consumer(self._consumer)
        if self._store.put_if_absent(key, b"{}"):
            self._store.delete(key)
        return f"the heartbeat of {self._consumer} may be written"

    def _heartbeats(self) -> str:
        listed = next(iter(self._store.list(keys.CONSUMERS)), None)
        if listed is not None:
            self._store.get(listed.key)
        return "heartbeats may be listed and read"

    def _probe(self) -> str:
        key = f"{SCRATCH}{uuid.uuid4().hex}/right"
        self._store.put(key, b"x")
        self._store.get(key)
        self._store.delete(key)
        return "doctor/ may be written, read and emptied"

    def _file(self) -> str:
        for listed in self._store.list(f"{keys.blob(_NO_DIGEST).rpartition('/')[0]}/"):
            if listed.size <= _SMALL:
                return listed.key
        raise _NothingToAskWithError("a first, small model file is published")

    def _entry(self, kind: str) -> str:
        key = next(self._entries(kind), None)
        if key is None:
            raise _NothingToAskWithError(f"there is a first object among the {kind.strip('/')}")
        return key

    def _entries(self, kind: str) -> Iterator[str]:
        for model in self._store.folders(keys.MODELS):
            for listed in self._store.list(f"{keys.MODELS}{model}{kind}"):
                yield listed.key
