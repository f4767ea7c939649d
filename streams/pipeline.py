"""The pipeline file: one model's whole way, from the topic it learns from to the topic it scores into."""

from __future__ import annotations

import tomllib
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError
from pydantic import model_validator as validator

from registry.documents import Label
from registry.errors import UsageError
from registry.names import DEFAULT_CHANNEL, require_name

DEFAULT_OPSET = 18
"""The newest opset that skl2onnx 1.19 and ONNX Runtime 1.22, the oldest allowed, both know."""

_TOPIC = r"^[A-Za-z0-9._-]{1,249}$"
Topic = Annotated[str, Field(pattern=_TOPIC)]
FieldName = Annotated[str, Field(min_length=1)]
ClassLabel = StrictBool | StrictInt | StrictStr


class Section(BaseModel):
    """A table of the pipeline file; an unknown key is a typing error, not an extension."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _Features(Section):
    field: FieldName
    minimum: float | None = None
    maximum: float | None = None

    @validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum is above maximum")
        return self


class ArrayFeatures(_Features):
    """A JSON array of exactly `size` numbers."""

    kind: Literal["array"]
    size: int = Field(ge=1)

    @property
    def width(self) -> int:
        """Numbers per record."""
        return self.size

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each feature: `x[0]`, `x[1]` …."""
        return tuple(f"{self.field}[{index}]" for index in range(self.size))


class ObjectFeatures(_Features):
    """A JSON object with at least the keys `names`, each a number; the order of `names` is the model's."""

    kind: Literal["object"]
    names: tuple[FieldName, ...] = Field(min_length=1)

    @validator(mode="after")
    def _names_differ(self) -> Self:
        if len(set(self.names)) != len(self.names):
            raise ValueError("a name occurs twice in names")
        return self

    @property
    def width(self) -> int:
        """Numbers per record."""
        return len(self.names)


class LabelSpec(Section):
    """Where the truth is, and what values it may have; the order of `classes` is that of all scores."""

    field: FieldName
    classes: tuple[ClassLabel, ...] = Field(min_length=2)

    @validator(mode="after")
    def _classes_of_one_kind(self) -> Self:
        if len({type(value) for value in self.classes}) != 1:
            raise ValueError("classes must be all whole numbers, all strings or all booleans")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class occurs twice in classes")
        ascending = sorted(self.classes)
        if list(self.classes) != ascending:
            raise ValueError(f"classes must be in ascending order, as scores are: {ascending}")
        return self

    @cached_property
    def _index(self) -> dict[tuple[type, Label], int]:
        return {(type(value), value): index for index, value in enumerate(self.classes)}

    def index_of(self, value: object) -> int | None:
        """The position of `value` in `classes`, None where it is no class.

        `true` is not 1 and "1" is not 1; 1.0 is 1, because some JSON writers know only one kind of number.
        """
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return self._index.get((type(value), value)) if isinstance(value, Label) else None


class SourceSpec(Section):
    """The topic with the records, and what each record holds."""

    topic: Topic
    event_time: FieldName | None = None
    start: Literal["earliest", "latest"] = "earliest"
    max_record_bytes: int = Field(default=1024 * 1024, ge=1)
    features: Annotated[ArrayFeatures | ObjectFeatures, Field(discriminator="kind")]
    label: LabelSpec


class Learning(Section):
    """Arguments of scikit-learn's `SGDClassifier`; the loss is always `log_loss`."""

    alpha: float = Field(default=1e-4, gt=0)
    penalty: Literal["l2", "l1", "elasticnet"] = "l2"
    l1_ratio: float = Field(default=0.15, ge=0, le=1)
    learning_rate: Literal["optimal", "constant", "invscaling"] = "optimal"
    eta0: float = Field(default=0.01, gt=0)
    power_t: float = 0.5
    seed: int = Field(default=0, ge=0, le=2**32 - 1)


class LearnerSpec(Section):
    """How the model learns."""

    batch_records: int = Field(default=100, ge=1, le=100_000)
    learning: Learning = Learning()


class EvaluationSpec(Section):
    """How the model is judged: over the last `window` records, each predicted before it is learnt."""

    window: int = Field(default=1000, ge=10, le=1_000_000)


class ExportSpec(Section):
    """When a version is exported, and how exactly the file must agree with the estimator.

    A version is due after `every_records` or `every_seconds` with a new record, whichever is first, yet
    never sooner than `min_seconds` after the one before: a backlog must not flood the registry.
    """

    every_records: int = Field(default=1000, ge=1)
    every_seconds: float = Field(default=5.0, gt=0)
    min_seconds: float = Field(default=1.0, ge=0)
    opset: int = Field(default=DEFAULT_OPSET, ge=13)
    parity_rows: int = Field(default=200, ge=1, le=100_000)
    parity_tolerance: float = Field(default=1e-4, gt=0)


class PromotionMode(StrEnum):
    """Who decides whether a new version serves."""

    ALWAYS = "always"
    NO_WORSE = "no_worse"
    MANUAL = "manual"


class PromotionSpec(Section):
    """When a published version is promoted by the trainer itself."""

    mode: PromotionMode = PromotionMode.ALWAYS
    min_records: int = Field(default=500, ge=0)
    min_accuracy: float = Field(default=0.0, ge=0, le=1)
    max_drop: float = Field(default=0.02, ge=0, le=1)


class ScoringSpec(Section):
    """Where the scoring job writes."""

    topic: Topic
    dead_letters: Topic = ""
    checkpoint_seconds: float = Field(default=5.0, ge=0.1)
    parallelism: int = Field(default=1, ge=1)

    @validator(mode="before")
    @classmethod
    def _name_dead_letters(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("topic"), str):
            return {"dead_letters": f"{values['topic']}.dlq"} | values
        return values

    @validator(mode="after")
    def _topics_differ(self) -> Self:
        if self.topic == self.dead_letters:
            raise ValueError("dead_letters is the same topic as topic")
        return self


class PipelineNames(Section):
    """Names of the pipeline, of its model and of the channel it promotes to."""

    name: str
    model: str
    channel: str = DEFAULT_CHANNEL

    @validator(mode="after")
    def _are_names(self) -> Self:
        for what in ("name", "model", "channel"):
            try:
                require_name(getattr(self, what), what="pipeline" if what == "name" else what)
            except UsageError as error:
                raise ValueError(f"{what}: {error}") from error
        return self


class Pipeline(Section):
    """A whole pipeline file."""

    pipeline: PipelineNames
    source: SourceSpec
    learner: LearnerSpec = LearnerSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    export: ExportSpec = ExportSpec()
    promotion: PromotionSpec = PromotionSpec()
    scoring: ScoringSpec | None = None

    @validator(mode="after")
    def _no_loop(self) -> Self:
        if self.scoring and self.source.topic in {self.scoring.topic, self.scoring.dead_letters}:
            raise ValueError("scoring would write into the topic it reads")
        return self

    @property
    def name(self) -> str:
        """Consumer group, transactional-id prefix and job name."""
        return self.pipeline.name

    @property
    def model(self) -> str:
        """The model's name in the registry."""
        return self.pipeline.model

    @property
    def channel(self) -> str:
        """The channel that is followed and promoted to."""
        return self.pipeline.channel

    def require_scoring(self) -> ScoringSpec:
        """The [scoring] table.

        Raises:
            UsageError: the pipeline has none, so there is nowhere to score into.
        """
        if self.scoring is None:
            raise UsageError(
                f"pipeline {self.name} has no [scoring] table; add one with the output topic:\n"
                '[scoring]\ntopic = "…"'
            )
        return self.scoring


def load_pipeline(path: Path) -> Pipeline:
    """Read a pipeline file.

    Raises:
        UsageError: it cannot be read, is not TOML, or a value in it is wrong; file and key are named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}; name a pipeline file, for example deploy/pipelines/digits.toml"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text; save it as UTF-8") from error
    return parse_pipeline(text, where=str(path))


def parse_pipeline(text: str, *, where: str) -> Pipeline:
    """Read the text of a pipeline file; `where` names it in messages.

    Raises:
        UsageError: as `load_pipeline`.
    """
    try:
        return Pipeline.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} is not TOML: {error}") from error
    except ValidationError as error:
        faults = error.errors(include_url=False)
        lines = [_fault_line(dict(fault)) for fault in faults]
        raise UsageError(f"{where}: " + "; ".join(lines)) from error


_HINTS = {
    "missing": "is missing; add it",
    "extra_forbidden": "is not a key of this table; correct its spelling or remove it",
    "union_tag_not_found": 'needs kind = "array" or kind = "object"',
}


def _fault_line(fault: dict[str, Any]) -> str:
    # the kind of a features table is part of pydantic's path, not of the file's
    parts = [str(part) for part in fault["loc"] if part not in {"array", "object"}]
    parts = [part for part in parts if part not in {"bool", "int", "str"}]
    key = ".".join(parts) or "the file"
    if hint := _HINTS.get(fault["type"]):
        return f"{key} {hint}"
    message = fault["msg"].removeprefix("Value error, ")
    given = fault.get("input")
    shown = f" (it is {given!r})" if isinstance(given, str | int | float) else ""
    return f"{key}: {message[:1].lower()}{message[1:]}{shown}"
