"""What a probe is and what it finds."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from ferryline.registry.errors import FerryError, MissingRightError
from ferryline.registry.stores.base import Store

Item = TypeVar("Item")
Result = TypeVar("Result")

SCRATCH = "doctor/"
"""Probes write below this prefix and nowhere else."""

HANDS = 16
"""How many requests a probe has under way at once."""


class Outcome(StrEnum):
    """How a probe ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_PROBED = "not probed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one probe found."""

    probe: str
    outcome: Outcome
    detail: str

    @property
    def failed(self) -> bool:
        """Whether the store broke a promise, or gave no answer."""
        return self.outcome is Outcome.FAILED


@dataclass(frozen=True, slots=True)
class Scratch:
    """A place of its own for one examination."""

    store: Store
    prefix: str = field(default_factory=lambda: f"{SCRATCH}{uuid.uuid4().hex}/")

    def key(self, name: str) -> str:
        """A key in it."""
        return f"{self.prefix}{name}"

    def clean_up(self) -> None:
        """Take away what was written, as far as the store and the rights allow."""
        try:
            left = [listed.key for listed in self.store.list(self.prefix)]
            at_once(self.store.delete, left)
        except (FerryError, NotProbedError):
            # the findings tell already that the store does not answer; a left-over probe harms nothing
            return


class BrokenPromiseError(Exception):
    """The store answered, and not as it must."""


class NotProbedError(Exception):
    """This machine cannot make the requests that the probe needs."""


def at_once(call: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Returns what `call` returns for each item, with `HANDS` threads.

    Raises:
        NotProbedError: the machine does not run so many threads.
    """
    with ThreadPoolExecutor(HANDS) as pool:
        try:
            return list(pool.map(call, items))
        except RuntimeError as error:  # of a thread that cannot start, or of a barrier that was not reached
            raise NotProbedError(
                f"this machine did not run {HANDS} threads at once ({str(error) or type(error).__name__}); "
                "raise its limit of processes (ulimit -u), or look from another machine"
            ) from error


def require(kept: bool, promise: str) -> None:
    """Say that a promise was broken.

    Raises:
        BrokenPromiseError: it was.
    """
    if not kept:
        raise BrokenPromiseError(promise)


def run(name: str, check: Callable[[Scratch], str], scratch: Scratch) -> Finding:
    """What one probe finds; it raises nothing."""
    try:
        return Finding(name, Outcome.PASSED, check(scratch))
    except MissingRightError as error:
        return Finding(name, Outcome.NOT_PROBED, f"lacks {error.right}")
    except NotProbedError as error:
        return Finding(name, Outcome.NOT_PROBED, str(error))
    except (FerryError, BrokenPromiseError) as error:
        return Finding(name, Outcome.FAILED, str(error))
