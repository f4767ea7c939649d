"""What all tables of the pipeline file have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _no_folder(topic: str) -> str:
    if topic in {".", ".."}:
        raise ValueError("no topic of Kafka's may be called so")
    return topic


LONGEST_TOPIC = 249
"""Characters that Kafka allows in the name of a topic."""

_TOPIC = rf"^[A-Za-z0-9._-]{{1,{LONGEST_TOPIC}}}$"
Topic = Annotated[str, Field(pattern=_TOPIC), AfterValidator(_no_folder)]
FieldName = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A table of the pipeline file; an unknown key is a typing error, not an extension."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
