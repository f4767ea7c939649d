"""Where an answer comes from: the names under which replies, trailing metadata and HTTP headers say it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ferryline.model_runtime.served import ServedModel

PREFIX = "ferry_"
GENERATION = "ferry_generation"
DIGEST = "ferry_digest"
CHANNEL = "ferry_channel"
DATA_AGE = "ferry_data_age_seconds"

VERSION_KEY = "ferry-version"
GENERATION_KEY = "ferry-generation"
DIGEST_KEY = "ferry-digest"
DATA_AGE_KEY = "ferry-data-age-seconds"

Metadata = tuple[tuple[str, str], ...]


class Provenance:
    """Where the answers of one served version come from, as metadata beside an answer.

    The age is in whole seconds there: then the same pairs go out for a second, which HTTP/2 sends as one byte
    each, and which are made once.
    """

    __slots__ = ("_fixed", "_metadata", "_newest_event", "_second")

    def __init__(self, served: ServedModel) -> None:
        self._fixed = (
            (VERSION_KEY, str(served.version)),
            (GENERATION_KEY, str(served.generation)),
            (DIGEST_KEY, served.digest),
        )
        self._newest_event = newest_event_time(served)
        self._second = 0
        self._metadata: Metadata = self._fixed

    def metadata(self) -> Metadata:
        """Keys and values, as they are now."""
        if self._newest_event is None:
            return self._fixed
        age = int(time.time() - self._newest_event)
        if age != self._second or self._metadata is self._fixed:
            self._second, self._metadata = age, (*self._fixed, (DATA_AGE_KEY, str(age)))
        return self._metadata


def newest_event_time(served: ServedModel) -> float | None:
    """The event time of the newest record that the version learnt from, as a Unix time; None if not known."""
    lineage = served.manifest.lineage
    newest = lineage.newest_event_time if lineage is not None else None
    return None if newest is None else newest.timestamp()
