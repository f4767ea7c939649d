"""How models, versions and channels are written: `digits`, `digits@7`, `digits:staging`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ferryline.registry.errors import UsageError

DEFAULT_CHANNEL = "production"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"0*[1-9][0-9]{0,17}")
_REFERENCE = re.compile(r"(?P<model>[^@:]*)(?:@(?P<version>[^@:]*)|:(?P<channel>[^@:]*))?")


def is_name(text: str) -> bool:
    """Whether `text` may name a model, channel or consumer."""
    return _NAME.fullmatch(text) is not None and ".." not in text


def require_name(name: str, *, what: str) -> str:
    """Return `name` if it may name a model, channel or consumer.

    Raises:
        UsageError: it may not; `what` ("model", "channel") is named in the message.
    """
    if not is_name(name):
        raise UsageError(
            f"{name!r} cannot name a {what}: use 1 to 63 lower-case letters, digits, '-', '_' or '.', "
            "beginning and ending with a letter or digit"
        )
    return name


def parse_version(text: str) -> int:
    """A version number from what a person typed.

    Raises:
        UsageError: it is not a positive whole number.
    """
    if not _VERSION.fullmatch(text):
        raise UsageError(f"{text!r} is not a version: versions are 1, 2, 3 …")
    return int(text)


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A model, and perhaps one of its versions or channels."""

    model: str
    version: int | None = None
    channel: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelReference:
        """Read `MODEL`, `MODEL@VERSION` or `MODEL:CHANNEL`.

        Raises:
            UsageError: `text` has none of these forms.
        """
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise UsageError(f"{text!r} is not MODEL, MODEL@VERSION or MODEL:CHANNEL")
        version, channel = match["version"], match["channel"]
        return cls(
            model=require_name(match["model"], what="model"),
            version=None if version is None else parse_version(version),
            channel=None if channel is None else require_name(channel, what="channel"),
        )

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.model}@{self.version}"
        return f"{self.model}:{self.channel}" if self.channel else self.model

    @property
    def channel_or_default(self) -> str:
        """The channel named, or `production`."""
        return self.channel or DEFAULT_CHANNEL
