"""Whether the server is ready, and why not, or what is about to go wrong though it is."""

from __future__ import annotations

from typing import Any

from grpc_server.models import FollowedModel, Models
from registry.documents import utc_now


def readiness(models: Models) -> dict[str, Any]:
    """For each model what it serves and how following it goes, as JSON."""
    return {"models": {model.name: _of_model(model, models.requires(model.name)) for model in models}}


def _of_model(model: FollowedModel, required: bool) -> dict[str, Any]:
    report = model.follower.report()
    failing = model.failing_seconds()
    read = None if report.polled_at is None else (utc_now() - report.polled_at).total_seconds()
    return {
        "ready": model.current is not None,
        "required": required,
        "channel": report.channel,
        "phase": report.phase,
        "version": report.version,
        "generation": report.generation,
        "channel_read_seconds_ago": None if read is None else round(read, 1),
        "failing_seconds": round(failing, 1),
        "channel_expired": model.follower.expired,
        "last_error": report.last_error,
    }
