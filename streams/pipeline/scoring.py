"""[scoring] and [labels]: where the scoring job writes, and how its answers are judged later."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self

from pydantic import Field
from pydantic import model_validator as validator

from ferryline.registry.errors import UsageError
from ferryline.registry.names import require_name
from ferryline.streams.pipeline.section import FieldName, Section, Topic


class Replay(StrEnum):
    """What scores a record that is read again after a restore."""

    SAME = "same"
    NEWEST = "newest"


class ScoringSpec(Section):
    """Where the scoring job writes, and the channel whose version it tries in the shadow of what serves.

    The shadow may take at most `shadow_share` of the time that scoring takes; batches beyond that it skips.
    """

    topic: Topic
    dead_letters: Topic = ""
    checkpoint_seconds: float = Field(default=5.0, ge=0.1)
    latency_ms: int = Field(default=100, ge=5, le=60_000)
    parallelism: int = Field(default=1, ge=1)
    replay: Replay = Replay.SAME
    shadow: str | None = None
    shadow_share: float = Field(default=0.5, gt=0, le=1)

    @validator(mode="before")
    @classmethod
    def _name_dead_letters(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("topic"), str):
            return {"dead_letters": f"{values['topic']}.dlq"} | values
        return values

    @property
    def replays(self) -> str:
        """The topic that says which dead letters were replayed."""
        return f"{self.dead_letters}.replays"

    @validator(mode="after")
    def _shadow_is_a_name(self) -> Self:
        if self.shadow is not None:
            try:
                require_name(self.shadow, what="channel")
            except UsageError as error:
                raise ValueError(f"shadow: {error}") from error
        return self


class LabelsSpec(Section):
    """Labels that come later, in a topic of their own, under the key of the record they are about.

    Attributes:
        topic: where they come.
        field: the label's field where a value is a JSON object; None takes that of the source's label.
        within_seconds: how long after its record a label may come, by Kafka's timestamps.
        window_seconds: one accuracy record is written for as long.
        accuracy: the topic of these; None for `<scoring topic>.accuracy`.
    """

    topic: Topic
    field: FieldName | None = None
    within_seconds: float = Field(default=600.0, ge=1, le=7 * 86400)
    window_seconds: float = Field(default=10.0, ge=1, le=3600)
    accuracy: Topic | None = None
