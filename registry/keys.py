"""Where each object of the registry lies. The names are a contract: other programs read them too."""

from __future__ import annotations

from ferryline.registry.digests import hex_of

NUMBER_WIDTH = 10
BLOBS = "blobs/sha256/"
CONSUMERS = "consumers/"
HINT = "hint.json"
JOBS = "jobs/"
"""What the scoring job keeps beside the registry; no part of the registry reads it."""
MODELS = "models/"


def blob(digest: str) -> str:
    """The key of a model file."""
    return f"{BLOBS}{hex_of(digest)}"


def versions(model: str) -> str:
    """The prefix of a model's manifests."""
    return f"{MODELS}{model}/versions/"


def channels(model: str) -> str:
    """The prefix of all channels of a model."""
    return f"{MODELS}{model}/channels/"


def channel(model: str, name: str) -> str:
    """The prefix of one channel's entries."""
    return f"{channels(model)}{name}/"


def refusals(model: str) -> str:
    """The prefix of the ledger of refused candidates."""
    return f"{MODELS}{model}/refusals/"


def consumer(name: str) -> str:
    """The key of a consumer's heartbeat."""
    return f"{CONSUMERS}{name}.json"
