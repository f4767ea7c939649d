"""A worker process: `python -m ferryline.grpc_server.workers.worker FD`, which only a supervisor starts."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import structlog
import uvloop
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from ferryline.grpc_server.channels import Need
from ferryline.grpc_server.control import FixedModels, ModelControl
from ferryline.grpc_server.models import Models
from ferryline.grpc_server.process import Server, favour_requests, observers_of, reloading
from ferryline.grpc_server.security.setup import security_of
from ferryline.grpc_server.settings import ControlMode, ServerSettings
from ferryline.grpc_server.shadowing.setup import Shadows
from ferryline.grpc_server.signals import asked_to_stop
from ferryline.grpc_server.workers.asking import Asking
from ferryline.grpc_server.workers.led import LedChannel, LedModels
from ferryline.grpc_server.workers.link import Link
from ferryline.grpc_server.workers.messages import (
    TO_WORKER,
    Begin,
    Count,
    Counted,
    Counts,
    Drain,
    Hello,
    Listen,
    Listening,
    ToWorker,
    Unable,
)
from ferryline.grpc_server.workers.rows import Changes, row_of
from ferryline.registry.cli.edge import ExitCode
from ferryline.registry.errors import FerryError
from ferryline.registry.logs import configure_logs

log = structlog.get_logger(__name__)

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class _Counting:
    """Says what this worker has counted, of versions only what has changed.

    Args:
        models: whose requests are counted.
        collectors: what is measured besides.
    """

    def __init__(self, models: Models, collectors: Sequence[Collector]) -> None:
        self._models = models
        self._changes = Changes()
        self._registry = CollectorRegistry()
        for collector in collectors:
            self._registry.register(collector)

    def message(self, number: int) -> Counted:
        """The answer to a question of that number."""
        resident = int(Path("/proc/self/statm").read_text("ascii").split()[1]) * _PAGE_BYTES
        return Counted(
            round=number,
            counts=self._changes.since_last(self._rows()),
            metrics=generate_latest(self._registry).decode(),
            cpu_seconds=time.process_time(),
            resident_bytes=resident,
        )

    def _rows(self) -> Counts:
        return {
            str(channel): {
                version: row_of(counters) for version, counters in channel.counters.versions.items()
            }
            for channel in self._models.channels()
        }


@dataclass
class _Worker:
    """What a message from the supervisor may be about."""

    begin: Begin
    settings: ServerSettings
    link: Link[ToWorker]
    messages: AsyncIterator[ToWorker]
    server: Server
    led: LedModels
    asking: Asking
    counting: _Counting
    told_to_drain: bool = False

    async def hear(self, stopping: asyncio.Event) -> None:
        """Do what the supervisor says, until it is gone."""
        async for message in self.messages:
            match message:
                case Listen():
                    await self._listen()
                case Count(round=number):
                    self.link.send(self.counting.message(number))
                case Drain():
                    self.told_to_drain = True
                    stopping.set()
                case _:
                    self.led.hear(message)
                    self.asking.hear(message)
        self._left_alone(stopping)

    async def _listen(self) -> None:
        host = self.settings.server_host
        await self.server.transport.start(host, self.begin.port)
        if self.server.mirror is not None and self.begin.http_port is not None:
            await self.server.mirror.start(host, self.begin.http_port)
        self.link.send(Listening())

    def _left_alone(self, stopping: asyncio.Event) -> None:
        if self.told_to_drain:  # nobody waits for the end of the drain: it was asked to end at once
            os._exit(ExitCode.FAILED)
        log.error("the supervisor is gone; this worker answers what is under way and ends")
        stopping.set()

    async def drain(self) -> None:
        """Answer what is under way, and say what was counted to the last."""
        await self.server.drain(self.settings.server_drain_seconds)
        self.led.close()
        self.link.send(self.counting.message(0))


async def _work(end: socket.socket) -> None:
    link = await Link.over(end, TO_WORKER)
    messages = link.messages()
    begin = await anext(messages)
    if not isinstance(begin, Begin):
        raise FerryError(f"the supervisor began with {begin.kind}")
    settings = ServerSettings.model_validate(begin.settings)
    configure_logs(settings.server_log_format)
    structlog.contextvars.bind_contextvars(worker=begin.worker)
    try:
        await _serve(link, messages, begin, settings)
    except FerryError as error:
        link.send(Unable(reason=str(error)))
        raise
    finally:
        await link.closed()


async def _serve(
    link: Link[ToWorker], messages: AsyncIterator[ToWorker], begin: Begin, settings: ServerSettings
) -> None:
    favour_requests()
    security = security_of(settings)
    is_fixed = settings.server_model_control is ControlMode.FIXED
    # what callers may unload again is made when the supervisor says so
    channels = [LedChannel(reference) for reference in settings.references()] if is_fixed else []
    aside = _aside(settings, {str(channel) for channel in channels})
    shadows = Shadows(settings, (*channels, *aside))
    models = Models(channels, settings.optional_models(), shadows.by_model)
    models.complete = not settings.server_all
    asking = Asking(link.send)
    with observers_of(settings) as observers:
        server = Server.around(
            models,
            settings,
            _control(asking, settings),
            security,
            observers,
            shadows,
            share_port=True,
            totals=asking.totals,
        )
        led = LedModels(models, (*channels, *aside), link.send, server.report_health)
        counting = _Counting(models, server.collectors())
        worker = _Worker(begin, settings, link, messages, server, led, asking, counting)
        async with reloading(security, settings), shadows.running():
            await _until_drained(worker)


async def _until_drained(worker: _Worker) -> None:
    stopping = asyncio.Event()
    hearing = asyncio.ensure_future(worker.hear(stopping))
    waiting: list[Awaitable[object]] = [asked_to_stop(), stopping.wait(), _failure_of(hearing)]
    ends = [asyncio.ensure_future(each) for each in waiting]
    worker.server.report_health()
    worker.link.send(Hello())
    try:
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
        await worker.drain()
    finally:
        for each in (*ends, hearing):
            each.cancel()


async def _failure_of(work: asyncio.Future[None]) -> None:
    """Wait until that raises; where it simply ends, someone else hears of it."""
    await work
    await asyncio.Event().wait()


def _aside(settings: ServerSettings, known: set[str]) -> list[LedChannel]:
    """Channels of shadows that requests cannot reach."""
    channels = [LedChannel(policy.reference, Need.NOTHING) for policy in settings.shadows()]
    return [channel for channel in channels if str(channel) not in known]


def _control(asking: Asking, settings: ServerSettings) -> ModelControl:
    return asking if settings.server_model_control is ControlMode.EXPLICIT else FixedModels()


def main(arguments: Sequence[str]) -> NoReturn:
    """Work until the supervisor, or a signal, ends it."""
    end = socket.socket(fileno=int(arguments[0]))
    try:
        uvloop.run(_work(end))
    except FerryError:  # the supervisor was told, and tells whoever started it
        sys.exit(ExitCode.FAILED)
    except StopAsyncIteration:  # the supervisor was gone before it said anything
        sys.exit(ExitCode.FAILED)
    sys.exit(ExitCode.DONE)


if __name__ == "__main__":
    main(sys.argv[1:])
