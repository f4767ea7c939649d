"""The pipeline file: one model's whole way, from the topic it learns from to the topic it scores into.

section    what all its tables have in common
source, training, scoring    the tables
document   the whole file, and what its tables must agree on
reading    from text to that, or to one line that says what is wrong
"""

from ferryline.streams.pipeline.document import Pipeline, PipelineNames
from ferryline.streams.pipeline.reading import load_pipeline, parse_pipeline
from ferryline.streams.pipeline.scoring import LabelsSpec, Replay, ScoringSpec
from ferryline.streams.pipeline.section import FieldName, Topic
from ferryline.streams.pipeline.source import (
    ArrayFeatures,
    ClassLabel,
    Features,
    LabelSpec,
    ObjectFeatures,
    RecordFormat,
    SourceSpec,
)
from ferryline.streams.pipeline.training import (
    DEFAULT_OPSET,
    EvaluationSpec,
    ExportSpec,
    LearnerSpec,
    Learning,
    PromotionMode,
    PromotionSpec,
)

__all__ = [
    "DEFAULT_OPSET",
    "ArrayFeatures",
    "ClassLabel",
    "EvaluationSpec",
    "ExportSpec",
    "Features",
    "FieldName",
    "LabelSpec",
    "LabelsSpec",
    "LearnerSpec",
    "Learning",
    "ObjectFeatures",
    "Pipeline",
    "PipelineNames",
    "PromotionMode",
    "PromotionSpec",
    "RecordFormat",
    "Replay",
    "ScoringSpec",
    "SourceSpec",
    "Topic",
    "load_pipeline",
    "parse_pipeline",
]
