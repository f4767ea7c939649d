"""The workers of a supervisor: started, told, asked, and replaced when they die."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from ferryline.grpc_server.workers import restarts, rounds
from ferryline.grpc_server.workers.briefing import Briefing
from ferryline.grpc_server.workers.framing import FrameError
from ferryline.grpc_server.workers.link import Link
from ferryline.grpc_server.workers.messages import (
    TO_SUPERVISOR,
    Begin,
    Count,
    Counted,
    Done,
    Drain,
    Failed,
    Hello,
    Listen,
    Listening,
    Offer,
    Prepare,
    Refused,
    Release,
    ToSupervisor,
    ToWorker,
    Unable,
)
from ferryline.grpc_server.workers.restarts import Deaths
from ferryline.grpc_server.workers.rounds import Objection, Round, Verdict
from ferryline.grpc_server.workers.spawning import spawn
from ferryline.registry.errors import FerryError, UsageError

COUNT_SECONDS = 1.0
"""How long is waited for what workers have counted."""
SILENT_SECONDS = 60.0
"""A worker that says nothing for so long, though it is asked, is ended and replaced."""
END_SECONDS = 5.0
"""Until a worker that closed its end, or should have ended, is killed."""

log = structlog.get_logger(__name__)


class Ears(Protocol):
    """Who hears what workers say of their own accord."""

    def counted(self, worker: Member, message: Counted) -> None:
        """A worker says what it has counted."""
        ...

    def requested(self, worker: Member, message: ToSupervisor) -> None:
        """A caller's request needs the supervisor."""
        ...

    def gone(self, worker: Member) -> None:
        """A worker is gone, and will count no more."""
        ...


@dataclass(eq=False, slots=True)
class Member:
    """One worker process.

    Attributes:
        number: of the process; it is never used again.
        slot: its place among the workers, from 1; a replacement has the same.
        preparing: sessions that it has not answered for.
        unfit: sessions that it could not prepare.
        silent: seconds since it last said something, as far as it was asked.
    """

    number: int
    slot: int
    process: asyncio.subprocess.Process
    link: Link[ToSupervisor]
    up: bool = False
    invited: bool = False
    listening: bool = False
    unable: str | None = None
    silent: float = 0.0
    preparing: set[int] = field(default_factory=set)
    unfit: set[int] = field(default_factory=set)
    cpu_seconds: float = 0.0
    resident_bytes: int = 0


@dataclass(eq=False, slots=True)
class _Asking:
    state: Round
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def now(self, state: Round) -> None:
        self.state = state
        if state.over:
            self.over.set()


class Crew:
    """So many workers, each in its slot; to be used on one event loop.

    Args:
        size: how many.
        begin: the first message for the worker in a slot.
        ears: who hears what they say.
    """

    def __init__(self, size: int, begin: Callable[[int], Begin], ears: Ears) -> None:
        self.size = size
        self.restarts = 0
        self.started = asyncio.Event()
        """Set when all have listened once."""
        self._begin = begin
        self._ears = ears
        self._briefing = Briefing()
        self._members: dict[int, Member] = {}
        self._rounds: dict[int, _Asking] = {}
        self._numbers = itertools.count(1)
        self._round_numbers = itertools.count(1)
        self._keepers: list[asyncio.Future[None]] = []
        self._deaths = Deaths()
        self._stopping = asyncio.Event()

    @property
    def members(self) -> list[Member]:
        """The workers that there are, be they up or not."""
        return list(self._members.values())

    @property
    def listening(self) -> int:
        """How many take requests."""
        return sum(member.listening for member in self.members)

    def number(self) -> int:
        """A number for a round, used once; on any thread."""
        return next(self._round_numbers)

    def start(self) -> None:
        """Fill all slots, and keep them filled until `stop`."""
        self._keepers = [asyncio.ensure_future(self._keep(slot)) for slot in range(1, self.size + 1)]

    async def failed(self) -> None:
        """Wait until that cannot be done; the workers that there are go on until `stop`.

        Raises:
            UsageError: no worker can start, for a reason that a user can mend.
            FerryError: workers die again and again.
        """
        done, _ = await asyncio.wait(self._keepers, return_when=asyncio.FIRST_EXCEPTION)
        for keeper in done:
            keeper.result()

    async def stop(self, seconds: float) -> None:
        """Let every worker answer what is under way, for so many seconds, and end."""
        self._stopping.set()
        self.tell(Drain())
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=seconds + END_SECONDS)
        for member in self.members:
            self._end(member, "it did not end in time")
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    # --- what is said to all ------------------------------------------------------------------------

    def tell(self, message: ToWorker) -> None:
        """Say something to every worker, now and when it comes."""
        self._briefing.remember(message)
        for member in self.members:
            self._say(member, message)

    async def ask(self, message: Prepare | Offer, seconds: float) -> Verdict:
        """Put a question to all that take requests, and wait until the answers have a meaning.

        Whoever has not answered after `seconds` is ended, replaced, and waited for no more.
        """
        full = [member for member in self.members if member.invited] or self.members
        asking = self._rounds[message.round] = _Asking(rounds.asked(member.number for member in full))
        try:
            self.tell(message)
            await self._until_over(asking, seconds)
            for number in asking.state.waiting if not asking.state.over else ():
                self._dismiss(self._members[number], f"it did not answer within {seconds:g} s")
            return rounds.verdict(asking.state)
        finally:
            del self._rounds[message.round]

    async def count(self, question: Count, seconds: float = COUNT_SECONDS) -> None:
        """Have all workers say what they have counted, and wait for it, but not for long."""
        members = [member for member in self.members if member.up]
        asking = self._rounds[question.round] = _Asking(rounds.asked(member.number for member in members))
        try:
            for member in members:
                member.link.send(question)
            await self._until_over(asking, seconds)
        finally:
            del self._rounds[question.round]

    def look(self, seconds: float) -> None:
        """Replace workers that were asked and said nothing; `seconds` have passed since the last look."""
        for member in self.members:
            member.silent += seconds
            if member.silent > SILENT_SECONDS:
                self._dismiss(member, f"it said nothing for {SILENT_SECONDS:g} s")

    async def _until_over(self, asking: _Asking, seconds: float) -> None:
        if not asking.state.over:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asking.over.wait(), seconds)

    def _say(self, member: Member, message: ToWorker) -> None:
        member.link.send(message)
        match message:
            case Prepare(round=number):
                member.preparing.add(number)
            case Release(session=number):
                member.preparing.discard(number)
                member.unfit.discard(number)
                self._invite(member)
            case _:
                pass

    # --- what a worker says -------------------------------------------------------------------------

    def _hear(self, member: Member, message: ToSupervisor) -> None:
        member.silent = 0.0
        match message:
            case Hello():
                member.up = True
                self._invite(member)
            case Listening():
                self._listens(member)
            case Unable(reason=reason):
                member.unable = reason
            case Counted():
                member.cpu_seconds, member.resident_bytes = message.cpu_seconds, message.resident_bytes
                self._ears.counted(member, message)
                self._settle(message.round, lambda state: rounds.agreed(state, member.number))
            case Done() | Refused() | Failed():
                self._answered(member, message)
            case _:
                self._ears.requested(member, message)

    def _answered(self, member: Member, message: Done | Refused | Failed) -> None:
        if isinstance(message, Done):
            self._settle(message.round, lambda state: rounds.agreed(state, member.number))
        else:
            why = _objection(message)
            self._settle(message.round, lambda state: rounds.objected(state, member.number, why))
            if message.round in member.preparing:
                member.unfit.add(message.round)
        member.preparing.discard(message.round)
        self._invite(member)

    def _settle(self, number: int, change: Callable[[Round], Round]) -> None:
        asking = self._rounds.get(number)
        if asking is not None:
            asking.now(change(asking.state))

    def _invite(self, member: Member) -> None:
        """Let a worker listen, once it has all that the others serve."""
        if not member.up or member.invited or member.preparing or self._stopping.is_set():
            return
        if member.unfit & self._briefing.served():
            self._dismiss(member, "it cannot load what the others serve")
            return
        member.invited = True
        member.link.send(Listen())

    def _listens(self, member: Member) -> None:
        member.listening = True
        log.info("worker listens", worker=member.slot, pid=member.process.pid)
        if self.listening == self.size:
            self.started.set()

    # --- coming and going ---------------------------------------------------------------------------

    async def _keep(self, slot: int) -> None:
        while not self._stopping.is_set():
            try:
                member = await self._join(slot)
            except OSError as error:
                await self._pause(self._do_without(slot, error))
                continue
            counts = await self._attend(member)
            if not self._stopping.is_set():
                await self._pause(self._mourn(member, counts=counts))
                self.restarts += 1

    async def _pause(self, seconds: float) -> None:
        """Let so much time pass, unless `stop` comes first."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def _do_without(self, slot: int, error: OSError) -> float:
        """Seconds until the system is asked again for a process that it did not give.

        Raises:
            FerryError: nobody listens yet, so that whoever started the server should hear of it.
        """
        if not self.listening and not self.started.is_set():
            raise FerryError(
                f"no worker can be started: {error.strerror or error}; free memory, allow more processes "
                "and open files (ulimit -u, ulimit -n), or try fewer --workers"
            ) from error
        log.error("a worker cannot be started and is tried again", worker=slot, reason=str(error))
        return restarts.LONGEST_PAUSE

    async def _join(self, slot: int) -> Member:
        """Start a worker, and tell it all that the others know.

        Raises:
            OSError: the system starts no more processes.
        """
        process, end = await spawn()
        link = await Link.over(end, TO_SUPERVISOR)
        member = Member(next(self._numbers), slot, process, link)
        self._members[member.number] = member
        link.send(self._begin(slot))
        for message in self._briefing.messages():
            self._say(member, message)
        return member

    async def _attend(self, member: Member) -> bool:
        """Hear a worker until its end; False if it died over a version, which is held against that."""
        try:
            async for message in member.link.messages():
                self._hear(member, message)
        except FrameError as error:
            self._dismiss(member, str(error))
        finally:
            deadly = member.invited and bool(member.preparing)
            self._lose(member)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(member.process.wait()), END_SECONDS)
            self._end(member, "it closed its end and goes on")
            await member.process.wait()
        return not deadly

    def _mourn(self, member: Member, *, counts: bool) -> float:
        """Seconds until a replacement may start.

        Raises:
            FerryError: there should be none.
        """
        how = member.unable or _in_words(member.process.returncode)
        log.error("a worker is gone and is replaced", worker=member.slot, pid=member.process.pid, reason=how)
        if member.unable is not None:
            if not self.listening:
                raise UsageError(member.unable)
            return restarts.LONGEST_PAUSE  # the others took another certificate, or found the port free
        if counts:
            self._deaths = restarts.died(self._deaths, time.monotonic())
        if self._deaths.too_many:
            raise FerryError(
                f"workers died {restarts.MOST_DEATHS} times within {restarts.SPAN:g} s, the last one {how}; "
                "see the log above for what they said, and try --workers 1"
            )
        return self._deaths.pause

    def _dismiss(self, member: Member, reason: str) -> None:
        self._end(member, reason)
        self._lose(member)

    def _end(self, member: Member, reason: str) -> None:
        if member.process.returncode is None:
            log.error("a worker is ended", worker=member.slot, pid=member.process.pid, reason=reason)
            with contextlib.suppress(ProcessLookupError):
                member.process.kill()

    def _lose(self, member: Member) -> None:
        """Wait for it no more; what it counted stays."""
        if self._members.pop(member.number, None) is None:
            return
        member.listening = False
        member.link.close()
        self._ears.gone(member)
        for asking in list(self._rounds.values()):
            asking.now(rounds.lost(asking.state, member.number))


def _objection(message: Refused | Failed) -> Objection:
    if isinstance(message, Failed):
        return Objection(message.reason)
    return Objection(message.reason, message.gate, message.remedy)


def _in_words(code: int | None) -> str:
    if code is None or code >= 0:
        return f"ended with status {code}"
    with contextlib.suppress(ValueError):
        return f"ended by {signal.Signals(-code).name}"
    return f"ended by signal {-code}"


async def first_of(*work: Awaitable[None]) -> None:
    """Return, or raise, as the first of these does, and cancel the others."""
    futures = [asyncio.ensure_future(each) for each in work]
    try:
        done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        _raise_first(done)
    finally:
        for each in futures:
            each.cancel()


def _raise_first(done: Iterable[asyncio.Future[None]]) -> None:
    for each in done:
        each.result()
