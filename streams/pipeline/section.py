"""What all tables of the pipeline file have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_TOPIC = r"^[A-Za-z0-9._-]{1,249}$"
Topic = Annotated[str, Field(pattern=_TOPIC)]
FieldName = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A table of the pipeline file; an unknown key is a typing error, not an extension."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
