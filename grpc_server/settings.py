"""The server's settings: flags, then `FERRY_*` variables, then the config file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from registry.errors import UsageError
from registry.logs import LogFormat
from registry.names import ModelReference
from registry.settings import Settings, load_settings_of

Port = Annotated[int, Field(ge=0, le=65535)]

MIB = 2**20


class ServerSettings(Settings):
    """What `ferry-server` may be told; 0 for a port takes a free one."""

    server_models: Annotated[tuple[str, ...], NoDecode] = ()
    server_host: str = "127.0.0.1"
    server_port: Port = 8001
    server_metrics_port: Port = 8002
    server_max_message_mib: int = Field(default=64, ge=1, le=2047)
    server_drain_seconds: float = Field(default=30.0, ge=0)
    server_poll_seconds: float = Field(default=1.0, gt=0)
    server_log_format: LogFormat = LogFormat.CONSOLE

    @field_validator("server_models", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        # in the environment the names stand behind each other, as people write them
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    def references(self) -> list[ModelReference]:
        """The models to serve and the channels to follow.

        Raises:
            UsageError: none is named, one is named twice, or one is of no known form.
        """
        if not self.server_models:
            raise UsageError(
                "no model to serve: name one with --model NAME[:CHANNEL] or in FERRY_SERVER_MODELS"
            )
        references = [_reference(text) for text in self.server_models]
        names = [reference.model for reference in references]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"model {name} is named twice; one server follows one channel of a model")
        return references


def load_server_settings(**flags: Any) -> ServerSettings:
    """The settings in force; flags that are None or empty were not given.

    Raises:
        UsageError: the config file or a value in it is not of the form it must have.
    """
    return load_settings_of(ServerSettings, flags)


def _reference(text: str) -> ModelReference:
    reference = ModelReference.parse(text)
    if reference.version is not None:
        raise UsageError(
            f"{text!r} names a version, and a server follows a channel: "
            f"use {reference.model} or {reference.model}:CHANNEL"
        )
    return reference
