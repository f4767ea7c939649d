"""Whether the server is ready, and why not, or what is about to go wrong though it is."""

from __future__ import annotations

from typing import Any

from ferryline.grpc_server.channels import FollowedChannel
from ferryline.grpc_server.models import Models
from ferryline.registry.documents import utc_now


def readiness(models: Models) -> dict[str, Any]:
    """For each channel what it serves and how following it goes, as JSON.

    A model's first channel goes by the model's name alone, as in requests, the others as MODEL:CHANNEL.
    """
    return {
        "models": {
            str(channel) if channel is not model.default else model.name: _of_channel(
                channel, models.requires(channel)
            )
            for model in models
            for channel in model.channels
        }
    }


def _of_channel(channel: FollowedChannel, required: bool) -> dict[str, Any]:
    report = channel.follower.report()
    failing = channel.failing_seconds()
    read = None if report.polled_at is None else (utc_now() - report.polled_at).total_seconds()
    return {
        "ready": channel.current is not None,
        "required": required,
        "channel": report.channel,
        "phase": report.phase,
        "version": report.version,
        "generation": report.generation,
        "warm": list(channel.by_version),
        "channel_read_seconds_ago": None if read is None else round(read, 1),
        "failing_seconds": round(failing, 1),
        "channel_expired": channel.follower.expired,
        "last_error": report.last_error,
    }
