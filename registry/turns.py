"""Whose turn it is to collect garbage: runs are numbered by a log, and the later of two takes over."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
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
DELETE_WITHIN = 5.0
"""Seconds from a run's proof that it is its turn until it deletes something, or proves it again."""

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
        monotonic: seconds that only grow, a suspend of the machine included.
        pause: waits for so many seconds.

    Every destructive step goes through `remove`, or looks at `is_proved` right before.

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
        before = {listed.key: listed.modified_at for listed in self._store.list(RUNS)}
        began_at = {_number(key): moment for key, moment in before.items() if _is_run(key)}
        self.number = max(began_at, default=0) + 1
        self._proved = -math.inf
        self._begin(actor)
        self._began = monotonic()
        self._began_at = self._log.written_at(self.number)
        began_at[self.number] = self._began_at
        done = {number for number in began_at if self._done_key(number) in before}
        self._may_delete_at = self._began + _unsettled(began_at, done)

    def now(self) -> datetime:
        """The store's time, by what it said of this run's first write."""
        return self._began_at + timedelta(seconds=self._monotonic() - self._began)

    def require(self) -> None:
        """Go on only while no later run began.

        Raises:
            ConflictError: one did.
        """
        asked = self._monotonic()
        # not the next number alone: runs of long ago are forgotten, and so might be the one that took over
        if any(self._log.numbers(after=self.number)):
            raise self._superseded()
        self._proved = asked

    @property
    def is_proved(self) -> bool:
        """Whether it was this run's turn `DELETE_WITHIN` seconds ago or less."""
        return self._monotonic() - self._proved <= DELETE_WITHIN

    def remove(self, key: str) -> bool:
        """Delete an object while it is this run's turn; False where the store was too slow to prove that.

        A later run touches nothing of an earlier one's for `SETTLE` seconds. What was sent `DELETE_WITHIN`
        after a proof has reached the store by then.

        Raises:
            ConflictError: a later run began.
        """
        if not self.is_proved:
            self.require()
        if not self.is_proved:
            return False
        self._store.delete(key)
        return True

    def wait_for_predecessor(self) -> None:
        """Wait until nothing of any earlier run can reach the store any more."""
        while (left := self._may_delete_at - self._monotonic()) > 0:
            self._pause(left)

    def finish(self, earlier: Iterable[Listed]) -> None:
        """Say that nothing of this run is under way, and forget runs of long ago."""
        self._store.put_if_absent(self._done_key(self.number), b"{}")
        for listed in earlier:
            if _number(listed.key) <= self.number - RUNS_KEPT:
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


def _unsettled(began_at: Mapping[int, datetime], done: set[int]) -> float:
    """Seconds until nothing of earlier runs can reach the store any more.

    A run that did not say that it was done lost its turn when the next one began; what it had sent by then
    has reached the store `SETTLE` seconds later. That a later run was done says nothing of it.

    Args:
        began_at: when each run began, this one the last of them, by the store's clock.
        done: the runs that said that nothing of them is under way.
    """
    runs = sorted(began_at.items())
    lost_at = [moment for (number, _), (_, moment) in pairwise(runs) if number not in done]
    if not lost_at:
        return 0.0
    _, now = runs[-1]
    return min(SETTLE, max(0.0, SETTLE - (now - max(lost_at)).total_seconds()))


def _is_run(key: str) -> bool:
    return AppendLog.key_form(key.removeprefix(RUNS).removesuffix(SUFFIX))


def _number(key: str) -> int:
    """The number of a run, by the key of its record or of what says that it is done."""
    return int(key.removeprefix(RUNS).partition(".")[0])
