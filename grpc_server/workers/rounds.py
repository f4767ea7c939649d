"""One question put to all workers at once, and what their answers mean together.

A version is served by all workers or by none: each is asked to load it, and only when every one of them has
answered is it put to serve. Whoever dies meanwhile, or does not answer in time, is replaced and waited for no
more; but a version over which workers die is not served.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

MOST_LOST = 1
"""So many workers may die over a version, for reasons of their own; more, and it is the version's fault."""


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a worker cannot do what it was asked; without a gate it may go right the next time."""

    reason: str
    gate: str | None = None
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Round:
    """Where a question stands: who has not answered, who has, what the first objection was, who is gone."""

    waiting: frozenset[int]
    agreed: frozenset[int] = frozenset()
    lost: frozenset[int] = frozenset()
    objection: Objection | None = None

    @property
    def over(self) -> bool:
        """Whether nobody need be waited for."""
        return not self.waiting or self.objection is not None


@dataclass(frozen=True, slots=True)
class Agreed:
    """All can serve it."""


@dataclass(frozen=True, slots=True)
class Objected:
    """One worker cannot, so none does."""

    objection: Objection


@dataclass(frozen=True, slots=True)
class Deadly:
    """Workers died over it."""

    lost: int


Verdict = Agreed | Objected | Deadly


def asked(workers: Iterable[int]) -> Round:
    """A question that was put to those workers."""
    return Round(frozenset(workers))


def agreed(state: Round, worker: int) -> Round:
    """A worker has done it; one that was not asked changes nothing."""
    if worker not in state.waiting:
        return state
    return replace(state, waiting=state.waiting - {worker}, agreed=state.agreed | {worker})


def objected(state: Round, worker: int, objection: Objection) -> Round:
    """A worker cannot do it; the first objection counts, and one of who was not asked does not."""
    if worker not in state.waiting:
        return state
    return replace(state, waiting=state.waiting - {worker}, objection=state.objection or objection)


def lost(state: Round, worker: int) -> Round:
    """A worker is gone, whether it had answered or not."""
    if worker not in state.waiting | state.agreed:
        return state
    return replace(
        state,
        waiting=state.waiting - {worker},
        agreed=state.agreed - {worker},
        lost=state.lost | {worker},
    )


def verdict(state: Round) -> Verdict:
    """What the answers mean, once the round is over.

    Raises:
        ValueError: it is not.
    """
    if not state.over:
        raise ValueError(f"workers {sorted(state.waiting)} have not answered")
    if state.objection is not None:
        return Objected(state.objection)
    if not state.agreed or len(state.lost) > MOST_LOST:
        return Deadly(len(state.lost))
    return Agreed()
