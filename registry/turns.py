"""Whose turn it is to collect garbage: runs are numbered by a log, and the later of two takes over."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import ClassVar

from pydantic import AwareDatetime, Field

from ferryline.registry.contents import RUNS
from ferryline.registry.documents import utc_now
from ferryline.registry.errors import ConflictError
from ferryline.registry.garbage import SETTLE
from ferryline.registry.log import SUFFIX, AppendLog
from ferryline.registry.schema import Document
from ferryline.registry.stores.base import Listed, Store

RUNS_KEPT = 100

_DONE = ".done.json"


class GarbageRun(Document):
    """That a run of garbage collection began."""

    kind: ClassVar[str] = "garbage run"

    run: int = Field(ge=1)
    actor: str
    at: AwareDatetime
    op_id: str


class Turn:
    """A run that began: its number, which a later run takes from it, and the store's time.

    Args:
        store: where it collects.
        actor: who runs it.
        monotonic: seconds that only grow.
        pause: waits for so many seconds.

    Raises:
        ConflictError: another run began in the same moment.
        StoreError: the store does not answer.
    """

    def __init__(
        self,
        store: Store,
        *,
        actor: str,
        monotonic: Callable[[], float],
        pause: Callable[[float], None],
    ) -> None:
        self._store = store
        self._log = AppendLog(store, RUNS, pause=pause)
        self._monotonic = monotonic
        self._pause = pause
        before = [listed.key for listed in self._store.list(RUNS)]
        newest = max((int(key[len(RUNS) :][:10]) for key in before if _is_run(key)), default=0)
        self.number = newest + 1
        self._begin(actor)
        self._began = monotonic()
        self._began_at = self._log.written_at(self.number)
        clean = newest == 0 or self._done_key(newest) in before
        self._may_delete_at = self._began + (0 if clean else SETTLE)

    def now(self) -> datetime:
        """The store's time, by what it said of this run's first write."""
        return self._began_at + timedelta(seconds=self._monotonic() - self._began)

    def require(self) -> None:
        """Go on only while no later run began.

        Raises:
            ConflictError: one did.
        """
        if self._log.read(self.number + 1) is not None:
            raise self._superseded()

    def wait_for_predecessor(self) -> None:
        """Wait until nothing of a run that was killed can reach the store any more."""
        while (left := self._may_delete_at - self._monotonic()) > 0:
            self._pause(left)

    def finish(self, earlier: Iterable[Listed]) -> None:
        """Say that nothing of this run is under way, and forget runs of long ago."""
        self._store.put_if_absent(self._done_key(self.number), b"{}")
        for listed in earlier:
            if int(listed.key[len(RUNS) :][:10]) <= self.number - RUNS_KEPT:
                self._store.delete(listed.key)

    def _begin(self, actor: str) -> None:
        run = GarbageRun(run=self.number, actor=actor, at=utc_now(), op_id=uuid.uuid4().hex)
        try:
            self._log.append(self.number, run.encode())
        except ConflictError as error:
            raise self._superseded() from error

    def _done_key(self, number: int) -> str:
        return self._log.key(number).removesuffix(SUFFIX) + _DONE

    def _superseded(self) -> ConflictError:
        return ConflictError(
            "another run of garbage collection began meanwhile and does the rest; nothing needs to be undone"
        )


def _is_run(key: str) -> bool:
    return AppendLog.key_form(key.removeprefix(RUNS)[:10])
