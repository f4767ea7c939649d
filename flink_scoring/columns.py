"""The columns of the source table that the scoring function is given."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np

from streams.event_time import moment_at
from streams.pipeline import Pipeline, Replay

VALUE = "value"
KEY = "key"
TIMESTAMP = "timestamp"
PARTITION = "partition"
OFFSET = "offset"


def columns_of(pipeline: Pipeline) -> tuple[str, ...]:
    """Their names, in the order of the function's arguments; each costs a little for every record."""
    times = () if pipeline.source.event_time else (TIMESTAMP,)
    places = (PARTITION, OFFSET) if pipeline.require_scoring().replay is Replay.SAME else ()
    return (VALUE, KEY, *times, *places)


def moments_of(times: Any) -> list[datetime | None]:
    """Kafka's timestamps, a series of pandas in UTC; None for those beyond the years that a datetime has."""
    try:
        moments: list[datetime | None] = times.array.to_pydatetime().tolist()
    except (ValueError, OverflowError):
        milliseconds = times.dt.tz_convert(None).to_numpy("datetime64[ms]").astype(np.int64)
        return [moment_at(number) for number in milliseconds.tolist()]
    return moments
