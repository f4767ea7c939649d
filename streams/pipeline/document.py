"""The whole file: its tables, and what they must agree on."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator as validator

from ferryline.registry.errors import UsageError
from ferryline.registry.names import DEFAULT_CHANNEL, require_name
from ferryline.streams.pipeline.scoring import LabelsSpec, ScoringSpec
from ferryline.streams.pipeline.section import LONGEST_TOPIC, Section
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
    def _labels_of_predictions(self) -> Self:
        if self.labels is not None and self.scoring is None:
            raise ValueError("[labels] are joined to predictions, so [scoring] is needed too")
        return self

    @validator(mode="after")
    def _topics_apart(self) -> Self:
        users: dict[str, tuple[str, str]] = {}
        for user, topic in self._topics().items():
            if len(topic) > LONGEST_TOPIC:
                raise ValueError(f"{user} would be topic {topic}, longer than the {LONGEST_TOPIC} of Kafka")
            other, taken = users.setdefault(topic.replace(".", "_"), (user, topic))
            if other == user:
                continue
            if taken == topic:
                raise ValueError(f"{other} and {user} are one topic, {topic}; each needs its own")
            raise ValueError(
                f"{other} is topic {taken} and {user} is {topic}: Kafka makes no two topics that differ "
                "in dots and underscores alone"
            )
        return self

    def _topics(self) -> dict[str, str]:
        """All topics of the pipeline, by what uses them."""
        topics = {"source.topic": self.source.topic}
        if self.scoring is not None:
            topics["scoring.topic"] = self.scoring.topic
            topics["scoring.dead_letters"] = self.scoring.dead_letters
            topics["the ledger of replays"] = self.scoring.replays
        if self.labels is not None:
            topics["labels.topic"] = self.labels.topic
            topics["labels.accuracy"] = self.accuracy_topic
        return topics

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
