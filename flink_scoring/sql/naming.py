"""What the `model` of a SQL function names: a channel, a version, or a file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ferryline.registry.errors import UsageError
from ferryline.registry.names import ModelReference

FORMS = "MODEL, MODEL:CHANNEL, MODEL@VERSION, ./model.onnx, file:///model.onnx or s3://bucket/model.onnx"

_IS_PATH = re.compile(r"(\.{0,2}/|~).*|.*\.onnx", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ChannelName:
    """A channel, which is followed."""

    model: str
    channel: str

    def __str__(self) -> str:
        return f"{self.model}:{self.channel}"


@dataclass(frozen=True, slots=True)
class VersionName:
    """A version, which stays."""

    model: str
    version: int

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"


@dataclass(frozen=True, slots=True)
class FileName:
    """A file of this machine, which stays."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, slots=True)
class ObjectName:
    """An object of an S3 service, which stays.

    Attributes:
        folder: URL of what it lies in, a store as the registry has them.
        key: its name there.
    """

    folder: str
    key: str

    def __str__(self) -> str:
        place, _, query = self.folder.partition("?")
        return f"{place}/{self.key}" + (f"?{query}" if query else "")


ModelName = ChannelName | VersionName | FileName | ObjectName


def parse_model_name(text: str, folder: Path) -> ModelName:
    """Read what a person wrote.

    Args:
        text: one of `FORMS`.
        folder: where a relative path begins.

    Raises:
        UsageError: it has none of the forms.
    """
    scheme, found, _ = text.partition("://")
    if found:
        return _of_url(text, scheme)
    if _IS_PATH.fullmatch(text):
        return FileName((folder / Path(text).expanduser()).absolute())
    try:
        reference = ModelReference.parse(text)
    except UsageError as error:
        raise UsageError(f"{error}; a function's model is {FORMS}") from error
    if reference.version is not None:
        return VersionName(reference.model, reference.version)
    return ChannelName(reference.model, reference.channel_or_default)


def _of_url(text: str, scheme: str) -> ModelName:
    parts = urlsplit(text)
    if scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return FileName(Path(unquote(parts.path)))
    place, _, key = f"{parts.netloc}{parts.path}".rpartition("/")
    if scheme != "s3" or not place or not key:
        raise UsageError(f"{text!r} names no model; a function's model is {FORMS}")
    query = f"?{parts.query}" if parts.query else ""
    return ObjectName(f"s3://{place}{query}", unquote(key))
