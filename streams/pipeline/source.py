"""[source]: the topic, and what each of its records holds."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, StrictBool, StrictInt, StrictStr
from pydantic import model_validator as validator

from ferryline.registry.documents import Label
from ferryline.streams.avro_schema import AvroFields
from ferryline.streams.pipeline.section import FieldName, Section, Topic

ClassLabel = StrictBool | StrictInt | StrictStr


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


def _fits(value: int) -> bool:
    return -(2**63) <= value < 2**63


class LabelSpec(Section):
    """Where the truth is, and what values it may have; the order of `classes` is that of all scores."""

    field: FieldName
    classes: tuple[ClassLabel, ...] = Field(min_length=2)

    @validator(mode="after")
    def _classes_of_one_kind(self) -> Self:
        if len({type(value) for value in self.classes}) != 1:
            raise ValueError("classes must be all whole numbers, all strings or all booleans")
        beyond = [value for value in self.classes if isinstance(value, int) and not _fits(value)]
        if beyond:
            raise ValueError(
                f"the class {beyond[0]} is beyond the 64 bits of whole numbers in a model; use strings"
            )
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


Features: TypeAlias = ArrayFeatures | ObjectFeatures


class RecordFormat(StrEnum):
    """How a record's value is written."""

    JSON = "json"
    FLOAT32 = "float32"
    AVRO = "avro"


class SourceSpec(Section):
    """The topic with the records, and what each record holds.

    Attributes:
        topic: where the records come.
        format: how their values are written; `float32` is the features alone, little-endian.
        avro_schema: of `avro`, the schema's text; in the file the key `schema` names the file that has it.
        registry_header: of `avro`, whether Confluent's header of 5 bytes comes before the datum.
        event_time: the field with the time of the event; None takes Kafka's timestamp.
        start: where to begin without committed offsets.
        max_record_bytes: a larger value is rejected.
        features: where the numbers are.
        label: where the truth is.
    """

    topic: Topic
    format: RecordFormat = RecordFormat.JSON
    avro_schema: str | None = Field(default=None, alias="schema")
    registry_header: bool = False
    event_time: FieldName | None = None
    start: Literal["earliest", "latest"] = "earliest"
    max_record_bytes: int = Field(default=1024 * 1024, ge=1)
    features: Annotated[Features, Field(discriminator="kind")]
    label: LabelSpec

    @validator(mode="after")
    def _tensor_is_alone(self) -> Self:
        if self.format is RecordFormat.FLOAT32 and self.event_time is not None:
            raise ValueError("a float32 record has no event_time; remove it, and Kafka's timestamp is taken")
        if self.format is RecordFormat.FLOAT32 and isinstance(self.features, ObjectFeatures):
            raise ValueError('a float32 record is an array; say features.kind = "array" and its size')
        return self

    @validator(mode="after")
    def _schema_fits(self) -> Self:
        if (self.format is RecordFormat.AVRO) != (self.avro_schema is not None):
            raise ValueError('schema = "FILE.avsc" belongs to format = "avro", and that needs it')
        if self.avro_schema is not None:
            fields = AvroFields(self.avro_schema)
            if self.event_time is not None:
                fields.require(self.event_time)
            if isinstance(self.features, ObjectFeatures):
                fields.require_numbers_of(self.features.field, self.features.names)
            else:
                fields.require_array_of_numbers(self.features.field)
        return self
