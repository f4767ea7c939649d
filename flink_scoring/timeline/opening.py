"""Puts a keeper together for one subtask."""

from __future__ import annotations

import uuid
from functools import partial

from ferryline.flink_scoring.binding import require_fit
from ferryline.flink_scoring.following import wait_for_model
from ferryline.flink_scoring.timeline.journal import Journal, Place
from ferryline.flink_scoring.timeline.keeper import Keeper
from ferryline.flink_scoring.timeline.models import Models
from ferryline.flink_scoring.timeline.recall import Recall
from ferryline.model_runtime.follower import Follower
from ferryline.model_runtime.served import ServedModel
from ferryline.registry.opening import open_registry
from ferryline.registry.settings import Settings
from ferryline.streams.pipeline import Pipeline


def open_keeper(settings: Settings, pipeline: Pipeline, source_id: str, follower: Follower) -> Keeper:
    """The keeper of a subtask's timelines, under an attempt's name that nobody had before.

    Args:
        settings: name the registry's store, the keys to trust and the cache.
        pipeline: whose records are scored.
        source_id: the id of its source topic; nothing where the broker gives none.
        follower: follows the pipeline's model.

    Raises:
        UsageError: the settings name a store or keys that cannot be used.
    """
    registry = open_registry(settings)
    place = Place(pipeline.name, pipeline.source.topic, source_id, uuid.uuid4().hex)
    recall = Recall(
        registry,
        pipeline.model,
        pipeline.channel,
        cache=settings.cache,
        accept=lambda facts: require_fit(facts, pipeline),
        kept=partial(_warm, follower),
    )
    models = Models(lambda: wait_for_model(follower), recall)
    return Keeper(Journal(registry.store, place), models, place.log_of)


def _warm(follower: Follower, manifest_digest: str) -> ServedModel | None:
    return next((served for served in follower.warm if served.manifest.digest == manifest_digest), None)
