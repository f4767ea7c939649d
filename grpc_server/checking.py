"""`ferry-server --check-config`: everything that a start would need, looked at without starting."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from ferryline.grpc_server.security.setup import Security, security_of
from ferryline.grpc_server.settings import ServerSettings
from ferryline.registry.catalogue import Registry
from ferryline.registry.cli.output import ago, note, print_fields, print_gap, print_table
from ferryline.registry.errors import FerryError, NotFoundError, UsageError
from ferryline.registry.names import ModelReference
from ferryline.registry.opening import open_registry
from ferryline.registry.signing.setup import policy_of

_COLUMNS = ("MODEL", "CHANNEL", "VERSION", "GENERATION", "PROMOTED", "LEARNT UNTIL", "NEEDED", "BATCHES")
_YES = "yes"


@dataclass(frozen=True, slots=True)
class _Found:
    """A line of the table, and what is wrong with the model."""

    row: tuple[str, ...]
    fault: FerryError | None
    needed: bool


def check(settings: ServerSettings) -> None:
    """Print what would be served, on standard output, and what would be amiss.

    Raises:
        UsageError: a setting or a file is wrong.
        NotFoundError: nothing is promoted for a model that is needed.
        StoreError: the store cannot be reached, or its answer cannot be trusted.
    """
    settings.execution()
    settings.optional_models()
    settings.shadows()
    security = security_of(settings)
    _require_traces(settings)
    _require_cache(settings)
    registry = open_registry(settings)
    served = _references(settings, registry)
    found = [_look(registry, each, settings, _needed(each, settings)) for each in served]
    found += [_look(registry, each, settings, "shadow") for each in _shadows(settings, served)]
    print_fields(_fields(settings, security, registry))
    print_gap()
    print_table(_COLUMNS, [each.row for each in found])
    faults = [each.fault for each in found if each.fault is not None and each.needed]
    for fault in faults[1:]:
        note(f"also: {fault}")
    if faults:
        raise faults[0]


def _references(settings: ServerSettings, registry: Registry) -> list[ModelReference]:
    """The channels that are named, and those that would be found."""
    named, channel = settings.references(), settings.server_all_channel
    if not settings.server_all:
        return named
    known = {reference.model for reference in named if reference.channel_or_default == channel}
    names = [name for name in registry.models() if name not in known and channel in registry.channels(name)]
    return [*named, *(ModelReference(name, channel=channel) for name in names)]


def _shadows(settings: ServerSettings, served: list[ModelReference]) -> Iterator[ModelReference]:
    """The channels of shadows that requests cannot reach."""
    known = {(each.model, each.channel_or_default) for each in served}
    for policy in settings.shadows():
        if (policy.model, policy.channel) not in known:
            yield policy.reference


def _needed(reference: ModelReference, settings: ServerSettings) -> str:
    names = {reference.model, f"{reference.model}:{reference.channel_or_default}"}
    return _YES if names.isdisjoint(settings.server_optional_models) else "no"


def _look(registry: Registry, reference: ModelReference, settings: ServerSettings, needed: str) -> _Found:
    name, channel = reference.model, reference.channel_or_default
    policy = settings.execution().batching.get(name)
    batches = "-" if policy is None else f"{policy.max_batch_size} rows, {policy.max_queue_delay_us} µs"
    try:
        entry = registry.channel(name, channel).head()
        if entry is None:
            raise NotFoundError(
                f"nothing is promoted in channel {channel!r} of model {name!r}; the server would wait for it"
            )
        lineage = registry.versions(name).get(entry.version).lineage
    except FerryError as error:
        return _Found((name, channel, "-", "-", "-", "-", needed, batches), error, needed == _YES)
    learnt = ago(lineage.newest_event_time if lineage is not None else None)
    versions = (str(entry.version), str(entry.generation), ago(entry.at))
    return _Found((name, channel, *versions, learnt, needed, batches), None, needed == _YES)


def _fields(settings: ServerSettings, security: Security, registry: Registry) -> Iterator[tuple[str, str]]:
    host = settings.server_host
    yield "store", registry.store.url
    yield "gRPC", f"{host}:{settings.server_port}"
    yield "HTTP", f"{host}:{settings.server_http_port}" if settings.server_http else "off"
    yield "metrics", f"{settings.metrics_host}:{settings.server_metrics_port} (plain HTTP)"
    if settings.server_workers > 1:
        yield "workers", str(settings.server_workers)
    yield "TLS", _tls(security)
    yield "tokens", _tokens(security)
    yield "reflection", _reflection(security)
    yield "signatures", policy_of(settings).value
    yield "cache", str(settings.cache)


def _tls(security: Security) -> str:
    if security.certificates is None:
        return "off"
    found = security.certificates.value
    mutual = "" if found.client_ca is None else ", callers need a certificate too"
    return f"{found.subject}, until {found.not_after:%Y-%m-%d %H:%M} UTC{mutual}"


def _tokens(security: Security) -> str:
    if security.tokens is None:
        return "not asked for"
    return ", ".join(
        f"{entry.name} ({'+'.join(sorted(entry.rights))})" for entry in security.tokens.value.entries
    )


def _reflection(security: Security) -> str:
    if not security.reflection:
        return "off"
    return "on" if security.guard is None else "for tokens with the right admin"


def _require_traces(settings: ServerSettings) -> None:
    if settings.server_traces:
        from ferryline.grpc_server.observation.traces import exporting_traces

        exporting_traces().close()


def _require_cache(settings: ServerSettings) -> None:
    folder = next(each for each in (settings.cache, *settings.cache.parents) if each.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the cache {settings.cache} cannot be written: {folder} does not let this user")
