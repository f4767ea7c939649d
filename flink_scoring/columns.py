"""The columns of the source table that the scoring function is given."""

from __future__ import annotations

from ferryline.streams.pipeline import Pipeline, Replay

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
