"""The server's settings: flags, then `FERRY_*` variables, then the config file."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from ferryline.grpc_server.execution.policy import ExecutionPolicy, QueueLimits, parse_batching
from ferryline.grpc_server.regression import TrialPolicy
from ferryline.grpc_server.shadowing.policy import BacklogLimits, ShadowPolicy, parse_shadows
from ferryline.model_runtime.pool import WarmLimits
from ferryline.registry.errors import UsageError
from ferryline.registry.logs import LogFormat
from ferryline.registry.names import DEFAULT_CHANNEL, ModelReference, require_name
from ferryline.registry.settings import Settings, load_settings_of

Port = Annotated[int, Field(ge=0, le=65535)]

MIB = 2**20


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ControlMode(StrEnum):
    """Who says which models are served: the settings for good, or callers too, by load and unload."""

    FIXED = "fixed"
    EXPLICIT = "explicit"


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

    # the protocol over HTTP, and who says which models are served
    server_http: bool = True
    server_http_port: Port = 8000
    server_model_control: ControlMode = ControlMode.FIXED

    # every model that has a channel: see discovery.py
    server_all: bool = False
    server_all_channel: str = DEFAULT_CHANNEL

    # the longest wait before a new generation is taken up, drawn by lot so that a fleet spreads out
    server_swap_jitter_seconds: float = Field(default=0.0, ge=0, le=3600)

    # going back from a version that does worse than the one before: see regression.py
    server_fall_back: bool = False
    server_fall_back_requests: int = Field(default=1000, ge=1)
    server_fall_back_seconds: float = Field(default=60.0, gt=0)
    server_fall_back_faults: float = Field(default=0.1, ge=0, le=1)
    server_fall_back_factor: float = Field(default=3.0, ge=1)

    # what stays loaded, for each channel: see model_runtime/pool.py; versions are counted so far back, too
    server_warm_versions: int = Field(default=5, ge=2, le=16)
    server_warm_mib: int = Field(default=64, ge=0)

    # what runs again what was answered, to be compared: see shadowing/
    server_shadows: Annotated[tuple[str, ...], NoDecode] = ()
    server_shadow_queue_requests: int = Field(default=1000, ge=1)
    server_shadow_queue_mib: int = Field(default=64, ge=1)

    # how requests run: see execution/policy.py
    server_batching: Annotated[tuple[str, ...], NoDecode] = ()
    server_inline_us: int = Field(default=1000, ge=0)
    server_run_threads: int = Field(default_factory=_cores, ge=1, le=256)
    server_queue_requests: int = Field(default=1000, ge=1)
    server_queue_mib: int = Field(default=256, ge=1)

    # who may ask, and over what: see security/
    server_tls_certificate: Path | None = None
    server_tls_key: Path | None = None
    server_tls_client_ca: Path | None = None
    server_tokens: Path | None = None
    server_open_health: bool = True
    server_reflection: bool = True
    server_reload_seconds: float = Field(default=2.0, gt=0)

    # how many processes answer on the same ports: see workers/
    server_workers: int = Field(default=1, ge=1, le=64)

    # what is told about requests: see observation/
    server_access_log: float = Field(default=0.0, ge=0, le=1)
    server_traces: bool = False

    # models without which the server is ready all the same
    server_optional_models: Annotated[tuple[str, ...], NoDecode] = ()

    # where metrics and health are told in plain HTTP; the host of all else where it is not said
    server_metrics_host: str | None = None

    @field_validator(
        "server_models", "server_batching", "server_optional_models", "server_shadows", mode="before"
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        # in the environment the names stand behind each other, as people write them
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    def references(self) -> list[ModelReference]:
        """The models to serve and the channels to follow.

        Of a model with several channels the first answers requests that name neither version nor channel.

        Raises:
            UsageError: none is named, one is named twice, one is of no known form, or could not be asked for.
        """
        if self.server_all:
            require_name(self.server_all_channel, what="channel")
            if self.server_model_control is not ControlMode.FIXED:
                raise UsageError(
                    "either all models are served or callers say which: leave out --all or --model-control"
                )
        elif not self.server_models and self.server_model_control is ControlMode.FIXED:
            raise UsageError(
                "no model to serve: name one with --model NAME[:CHANNEL] or in FERRY_SERVER_MODELS, "
                "or all with --all"
            )
        references = [_reference(text) for text in self.server_models]
        seen: set[str] = set()
        for reference in references:
            name = f"{reference.model}:{reference.channel_or_default}"
            if name in seen:
                raise UsageError(f"{name} is named twice; name each channel of a model once")
            if reference.channel_or_default.isdigit() and reference.model in {
                each.partition(":")[0] for each in seen
            }:
                raise UsageError(
                    f"{name} could not be asked for: digits mean a version in requests, so a channel named "
                    f"so must be the first of its model"
                )
            seen.add(name)
        return references

    def trials(self) -> TrialPolicy | None:
        """When to go back from a new version; None for never."""
        if not self.server_fall_back:
            return None
        return TrialPolicy(
            requests=self.server_fall_back_requests,
            seconds=self.server_fall_back_seconds,
            fault_rise=self.server_fall_back_faults,
            run_factor=self.server_fall_back_factor,
        )

    def shadows(self) -> tuple[ShadowPolicy, ...]:
        """The channels whose versions run again what others answered.

        Raises:
            UsageError: one is of no known form, of a model that is not served, or of what answers itself.
        """
        first = {each.model: each.channel_or_default for each in reversed(self.references())}
        policies = parse_shadows(self.server_shadows)
        for policy in policies:
            if policy.model not in first and self._are_known:
                raise UsageError(f"shadow {policy} is of a model which is not among those to serve")
            answers = first.get(policy.model, self.server_all_channel if self.server_all else None)
            if policy.channel == answers:
                raise UsageError(
                    f"shadow {policy} answers the requests itself: name the channel that is to answer them "
                    f"first, as in --model {policy.model}:CHANNEL"
                )
        return policies

    def shadow_limits(self) -> BacklogLimits:
        """How much waits for one shadow."""
        return BacklogLimits(self.server_shadow_queue_requests, self.server_shadow_queue_mib * MIB)

    def warm_limits(self) -> WarmLimits:
        """How much stays loaded for each channel."""
        return WarmLimits(self.server_warm_versions, self.server_warm_mib * MIB)

    @property
    def _are_known(self) -> bool:
        """Whether the settings name every model that will be served."""
        return self.server_model_control is ControlMode.FIXED and not self.server_all

    @property
    def metrics_host(self) -> str:
        """The address for metrics."""
        return self.server_metrics_host or self.server_host

    def optional_models(self) -> frozenset[str]:
        """Names of models, and of channels as MODEL:CHANNEL, without which the server is ready all the same.

        Raises:
            UsageError: one of them is not among those to serve.
        """
        references = self.references()
        served = {reference.model for reference in references}
        served |= {f"{each.model}:{each.channel_or_default}" for each in references}
        stray = sorted(set(self.server_optional_models) - served)
        if stray and self._are_known:
            raise UsageError(f"model {stray[0]} is optional and not among those to serve")
        return frozenset(self.server_optional_models)

    def execution(self) -> ExecutionPolicy:
        """How requests run.

        Raises:
            UsageError: batching is not of the form it must have, or is for a model that is not served.
        """
        batching = parse_batching(self.server_batching)
        served = {reference.model for reference in self.references()}
        stray = sorted(set(batching) - served) if self._are_known else ()
        if stray:
            raise UsageError(f"batching is set for model {stray[0]}, which is not among those to serve")
        return ExecutionPolicy(
            inline_ns=self.server_inline_us * 1000,
            threads=self.server_run_threads,
            limits=QueueLimits(requests=self.server_queue_requests, size=self.server_queue_mib * MIB),
            batching=batching,
        )


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
