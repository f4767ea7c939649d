"""The generations that a subtask's partitions are scored by: the one that serves, and older ones."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

import structlog

from ferryline.flink_scoring.timeline.rules import Assigned
from ferryline.model_runtime.served import ServedModel
from ferryline.registry.errors import MissingRightError, RefusedError

log = structlog.get_logger(__name__)


class Loads(Protocol):
    """Brings older generations back."""

    def load(self, wanted: Assigned) -> ServedModel:
        """See `Recall.load`."""
        ...


class Models:
    """The models of generations; its owner's lock is held for all but `load`.

    Args:
        current: gives what serves.
        recall: loads what is kept no more.
    """

    def __init__(self, current: Callable[[], ServedModel], recall: Loads) -> None:
        self.current = current
        self._recall = recall
        self._kept: dict[Assigned, ServedModel] = {}
        self._gone: set[Assigned] = set()

    def newest(self) -> Assigned:
        """What serves; it is kept from now on."""
        served = self.current()
        by = assigned_to(served)
        self._kept[by] = served
        return by

    def kept(self, by: Assigned) -> ServedModel | None:
        """The model of a generation, None where it must be loaded."""
        return self._kept.get(by)

    def keep(self, needed: Collection[Assigned]) -> None:
        """Forget all models but those of the generations `needed`."""
        self._kept = {by: served for by, served in self._kept.items() if by in needed}
        self._gone = {by for by in self._gone if by in needed}

    def load(self, by: Assigned) -> ServedModel | None:
        """The model of a generation; None where it can be had no more, or not by us, which is told once.

        Raises:
            FerryError: it could not be had for now.
        """
        if by in self._gone:
            return None
        try:
            served = self._recall.load(by)
        except (RefusedError, MissingRightError) as error:
            log.error(  # noqa: TRY400 - whoever reads it needs the reason and no traceback
                "records are scored by another version than before the restore",
                generation=by.generation,
                version=by.version,
                reason=str(error),
            )
            self._gone.add(by)
            return None
        self._kept[by] = served
        return served


def assigned_to(served: ServedModel) -> Assigned:
    """What the rules call a model that serves."""
    return Assigned(f"{served.name}:{served.channel}", served.generation, served.version, served.digest)
