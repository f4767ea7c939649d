"""What `ferry watch` sees at one moment, and what became other since the moment before; no IO."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ferryline.registry.convergence import Service
from ferryline.registry.documents import ChannelEntry

Key = tuple[str, str]
"""A model, and a channel of it."""
Name = tuple[str, str, str]
"""A consumer, a model, and a channel of it."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The channels' newest entries and the consumers, as the store showed them; `fault` where it did not.

    `news` are the entries that the look before did not see, each channel's oldest first; `unreadable` are the
    channels that are damaged, with what is wrong; `behind` is how many generations each service is behind its
    channel, None where that is not known.
    """

    entries: Mapping[Key, ChannelEntry]
    services: Mapping[Name, Service]
    news: tuple[ChannelEntry, ...] = ()
    fault: str | None = None
    unreadable: Mapping[Key, str] = field(default_factory=dict)
    behind: Mapping[Name, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that became other: `kind` is `entry`, `consumer`, `channel` or `store`."""

    kind: str
    text: str
    details: Mapping[str, Any]


def events(before: Scene, now: Scene) -> Iterator[Event]:
    """What became other between two looks, in the order people want to read it."""
    if now.fault != before.fault:
        told = now.fault or "the store answers again"
        yield Event("store", told, {"reachable": now.fault is None, "fault": now.fault})
    if now.fault is not None:
        return
    for key in {**before.unreadable, **now.unreadable}:
        if before.unreadable.get(key) != now.unreadable.get(key):
            yield _channel(key, now.unreadable.get(key))
    for entry in now.news:
        yield Event("entry", entry_text(entry), {"entry": entry})
    for name, service in now.services.items():
        if _state(before.services.get(name)) != _state(service):
            yield _consumer(service, now.behind.get(name))
    for name in before.services:
        if name not in now.services:
            consumer, model, channel = name
            details = {"consumer": consumer, "model": model, "channel": channel, "state": "left"}
            yield Event("consumer", f"{consumer} left {model}:{channel}", details)


def entry_text(entry: ChannelEntry) -> str:
    """An entry in a line."""
    canary = f" with {entry.canary.version} for {entry.canary.percent:g} %" if entry.canary else ""
    held = ", held" if entry.held else ""
    why = f": {entry.reason}" if entry.reason else ""
    return (
        f"{entry.model}:{entry.channel} generation {entry.generation} {entry.operation} "
        f"version {entry.version}{canary}{held} by {entry.actor}{why}"
    )


def state_of(service: Service) -> str:
    """How a consumer does, in a word."""
    return "gone" if service.stale else service.report.phase


def _channel(key: Key, fault: str | None) -> Event:
    model, channel = key
    told = f"cannot be read: {fault}" if fault else "can be read again"
    details = {"model": model, "channel": channel, "readable": fault is None, "fault": fault}
    return Event("channel", f"{model}:{channel} {told}", details)


def _consumer(service: Service, behind: int | None) -> Event:
    report = service.report
    details = {
        "consumer": service.heartbeat.consumer,
        "model": report.model,
        "channel": report.channel,
        "state": state_of(service),
        "version": report.version,
        "generation": report.generation,
        "generations_behind": behind,
        "last_error": report.last_error,
    }
    late = f", {behind} behind" if behind else ""
    error = f" ({report.last_error})" if report.last_error else ""
    serves = f"version {report.version} generation {report.generation}" if report.version else "nothing yet"
    text = f"{service.heartbeat.consumer} {state_of(service)} {report.model}:{report.channel} {serves}"
    return Event("consumer", f"{text}{late}{error}", details)


def _state(service: Service | None) -> tuple[Any, ...] | None:
    if service is None:
        return None
    report = service.report
    return (state_of(service), report.version, report.generation, report.last_error)
