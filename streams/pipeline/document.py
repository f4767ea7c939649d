"""The whole file: its tables, and what they must agree on."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator as validator

from ferryline.registry.errors import UsageError
from ferryline.registry.names import DEFAULT_CHANNEL, require_name
from ferryline.streams.pipeline.scoring import LabelsSpec, ScoringSpec
from ferryline.streams.pipeline.section import Section
from ferryline.streams.pipeline.source import SourceSpec
from ferryline.streams.pipeline.training import EvaluationSpec, ExportSpec, LearnerSpec, PromotionSpec


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
    labels: LabelsSpec | None = None

    @validator(mode="after")
    def _no_loop(self) -> Self:
        if self.scoring and self.source.topic in {self.scoring.topic, self.scoring.dead_letters}:
            raise ValueError("scoring would write into the topic it reads")
        return self

    @validator(mode="after")
    def _labels_apart(self) -> Self:
        if self.labels is None:
            return self
        if self.scoring is None:
            raise ValueError("[labels] are joined to predictions, so [scoring] is needed too")
        topics = [self.source.topic, self.scoring.topic, self.scoring.dead_letters, self.labels.topic]
        if len({*topics, self.accuracy_topic}) <= len(topics):
            raise ValueError("the topics of [source], [scoring] and [labels] must all differ")
        return self

    @validator(mode="after")
    def _shadow_apart(self) -> Self:
        if self.scoring and self.scoring.shadow == self.channel:
            raise ValueError(f"scoring.shadow is {self.channel}, the channel that serves already")
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

    @property
    def accuracy_topic(self) -> str:
        """Where the accuracy by delayed labels goes; empty where there are none."""
        if self.labels is None:
            return ""
        return self.labels.accuracy or f"{self.require_scoring().topic}.accuracy"

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
