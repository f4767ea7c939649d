"""`ferry watch`: looks again and again, and shows what it sees."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import orjson

from ferryline.registry.catalogue import Registry
from ferryline.registry.cli.changing import channel_reference
from ferryline.registry.cli.formats import OutputFormat
from ferryline.registry.cli.opening import open_registry
from ferryline.registry.cli.output import ago, inert_json, printable
from ferryline.registry.cli.signals import stop_on_signals
from ferryline.registry.cli.watched import Event, Key, Scene, entry_text, events, state_of
from ferryline.registry.convergence import Positions, Service, services
from ferryline.registry.documents import ChannelEntry, utc_now
from ferryline.registry.errors import StoreDeniedError, StoreError, UntrustedAnswerError, UsageError
from ferryline.registry.names import ModelReference

if TYPE_CHECKING:
    from rich.console import Group

SHOWN_ENTRIES = 10


def watch(store: str | None, output: OutputFormat, reference: str | None, interval: float) -> None:
    """Show what changes until Ctrl-C."""
    if not 0.1 <= interval <= 3600:  # noqa: PLR2004 - seconds that make sense; false for NaN too
        raise UsageError(f"--interval takes 0.1 to 3600 seconds, not {interval:g}")
    wanted = None if reference is None else channel_reference(reference)
    watcher = Watcher(open_registry(store), wanted)
    stop = stop_on_signals()
    if output is OutputFormat.TABLE and sys.stdout.isatty():
        _watch_live(watcher, interval, stop)
    else:
        show = _print_json if output is OutputFormat.JSON else _print_line
        _watch_lines(watcher, interval, stop, show)


class Watcher:
    """Looks at a registry; a store that is down is a fault of the moment, not the end.

    Args:
        registry: the registry.
        wanted: only this model or channel; None for all.
    """

    def __init__(self, registry: Registry, wanted: ModelReference | None) -> None:
        self._registry = registry
        self._wanted = wanted
        self._last = Scene({}, {})
        self._seen = False
        self._unread: set[Key] = set()
        """The channels that were there at the first look and could not be read yet."""
        self._positions = Positions(registry)

    def look(self) -> Scene:
        """What there is now; what was there before, with the fault, where the store does not tell.

        At the first look a channel's newest entry is news, and from then on every entry.

        Raises:
            StoreDeniedError: at the first look: wrong credentials, no such bucket.
        """
        try:
            scene = self._look()
        except StoreError as error:
            if isinstance(error, StoreDeniedError) and not self._seen:
                raise  # what was wrong from the start is for the caller to mend, not to wait for
            return replace(self._last, news=(), fault=str(error))
        # only now: what was read by a look that failed was not told
        self._unread = self._unread & set(scene.unreadable) if self._seen else set(scene.unreadable)
        self._seen = True
        self._last = scene
        return scene

    def _look(self) -> Scene:
        # before the channels, or a consumer could be ahead of what was read of its channel
        heartbeats = list(self._registry.consumers.all())
        found = {
            (service.heartbeat.consumer, service.report.model, service.report.channel): service
            for service in services(heartbeats, self._registry.store.now())
            if self._is_wanted(service.report.model, service.report.channel)
        }
        news, unreadable = self._news()
        entries = {**self._last.entries, **{(entry.model, entry.channel): entry for entry in news}}
        return Scene(
            entries,
            found,
            tuple(news),
            unreadable=unreadable,
            behind={name: self._behind(service, entries) for name, service in found.items()},
        )

    def _behind(self, service: Service, entries: Mapping[Key, ChannelEntry]) -> int | None:
        head = entries.get((service.report.model, service.report.channel))
        return None if head is None else self._positions.behind(service.report, head)

    def _news(self) -> tuple[list[ChannelEntry], dict[Key, str]]:
        """What is new in each channel; and what is wrong with those that cannot be read."""
        found: list[ChannelEntry] = []
        unreadable: dict[Key, str] = {}
        for model in [self._wanted.model] if self._wanted else self._registry.models():
            for channel in filter(partial(self._is_wanted, model), self._registry.channels(model)):
                try:
                    found += self._newer(model, channel)
                except UntrustedAnswerError as error:
                    unreadable[model, channel] = str(error)
        return found, unreadable

    def _newer(self, model: str, channel: str) -> list[ChannelEntry]:
        log, known = self._registry.channel(model, channel), self._last.entries.get((model, channel))
        if known is not None:  # one read where nothing is new
            return log.newer_than(known)
        if self._seen and (model, channel) not in self._unread:  # it is new itself
            return list(log.history())
        return log.newest(1)

    def _is_wanted(self, model: str, channel: str) -> bool:
        return self._wanted is None or (
            model == self._wanted.model and self._wanted.channel in {None, channel}
        )


def _watch_lines(
    watcher: Watcher, interval: float, stop: threading.Event, show: Callable[[Event], None]
) -> None:
    before = Scene({}, {})
    while not stop.is_set():
        now = watcher.look()
        for event in events(before, now):
            show(event)
        before = now
        stop.wait(interval)


def _print_line(event: Event) -> None:
    _write(f"{utc_now():%Y-%m-%d %H:%M:%S} {event.kind} {printable(event.text)}")


def _print_json(event: Event) -> None:
    line = {"at": utc_now(), "event": event.kind, **event.details}
    data = orjson.dumps(line, default=lambda value: value.model_dump(mode="json"))
    _write(inert_json(data).decode())


def _write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _watch_live(watcher: Watcher, interval: float, stop: threading.Event) -> None:
    from rich.live import Live

    recent: list[str] = []
    before = Scene({}, {})
    with Live(auto_refresh=False) as live:
        while not stop.is_set():
            now = watcher.look()
            recent += [f"{utc_now():%H:%M:%S} {event.text}" for event in events(before, now)]
            del recent[:-SHOWN_ENTRIES]
            live.update(_picture(now, recent), refresh=True)
            before = now
            stop.wait(interval)


def _picture(scene: Scene, recent: list[str]) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    channels = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("CHANNEL", "NEWEST ENTRY"):
        channels.add_column(column, overflow="fold")
    for entry in scene.entries.values():
        text = f"{printable(entry_text(entry))}, {ago(entry.at)}"
        channels.add_row(f"{entry.model}:{entry.channel}", Text(text))
    for (model, channel), fault in scene.unreadable.items():
        channels.add_row(f"{model}:{channel}", Text(printable(fault), style="bold red"))
    consumers = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("CONSUMER", "CHANNEL", "SERVES", "BEHIND", "STATE", "LAST ERROR"):
        consumers.add_column(column, overflow="fold")
    for name, service in scene.services.items():
        report, behind = service.report, scene.behind.get(name)
        cells = (
            service.heartbeat.consumer,
            f"{report.model}:{report.channel}",
            service.serves,
            "?" if behind is None else str(behind),
            state_of(service),
            report.last_error or "-",
        )
        consumers.add_row(*(Text(printable(cell)) for cell in cells))
    down = [Text(printable(scene.fault), style="bold red")] if scene.fault else []
    lines = [Text(printable(line)) for line in recent]
    return Group(*down, channels, Text(), consumers, Text(), *lines)
