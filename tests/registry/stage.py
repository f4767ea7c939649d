"""Several programs on one store, one request at a time, in an order and by a clock that a test chooses.

Each program runs in a thread that stops before every request until the test lets it go on, or kills it. What
the programs assume of time is assumed here too, and no more: a publish or promote takes `LONGEST_CHANGE` at
most, and a request that was sent reaches the store within `LONGEST_REQUEST`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from ferryline.registry.stores import Listed, Stored
from ferryline.registry.stores.memory import MemoryStore
from tests.support.waiting import DEADLINE

T = TypeVar("T")
START = datetime(2026, 1, 1, tzinfo=UTC)
LONGEST_CHANGE = 240.0
LONGEST_REQUEST = 18.0


class Killed(BaseException):
    """The program ends here, as by SIGKILL."""


class World(MemoryStore):
    """The store, and the time."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.written: dict[str, float] = {}
        self.before_delete: Callable[[str], None] = lambda _key: None
        self.after_write: Callable[[str], None] = lambda _key: None

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        for listed in super().list(prefix, after=after):
            moment = START + timedelta(seconds=self.written[listed.key])
            yield Listed(listed.key, listed.size, moment)

    def delete(self, key: str) -> None:
        self.before_delete(key)
        super().delete(key)

    def _write(self, key: str, data: bytes) -> None:
        super()._write(key, data)
        self.written[key] = self.seconds

    def put_if_absent(self, key: str, data: bytes) -> bool:
        created = super().put_if_absent(key, data)
        if created:
            self.after_write(key)
        return created

    def now(self) -> datetime:
        return self.clock()

    def clock(self) -> datetime:
        return START + timedelta(seconds=self.seconds)


@dataclass
class Program:
    """One program: what it waits for, and whether it may go on."""

    name: str
    world: World
    is_change: bool
    asleep_until: float = 0.0
    waiting_since: float = 0.0
    began_at: float = 0.0
    pending: str = ""
    ended: bool = False
    fault: BaseException | None = None
    kill: bool = False
    kill_after: bool = False
    _go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _stopped: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def url(self) -> str:
        return self.world.url

    # --- the program's side: a store and a clock --------------------------------------------------

    def get(self, key: str) -> Stored:
        return self._request(f"get {key}", lambda: self.world.get(key))

    def get_if_changed(self, key: str, etag: str) -> Stored | None:
        return self._request(f"get {key}", lambda: self.world.get_if_changed(key, etag))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self._request(f"add {key}", lambda: self.world.put_if_absent(key, data))

    def put(self, key: str, data: bytes) -> None:
        return self._request(f"put {key}", lambda: self.world.put(key, data))

    def put_if_unchanged(self, key: str, data: bytes, etag: str) -> bool:
        return self._request(f"put {key}", lambda: self.world.put_if_unchanged(key, data, etag))

    def now(self) -> datetime:
        return self.world.now()

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        return iter(self._request(f"list {prefix}", lambda: [*self.world.list(prefix, after=after)]))

    def folders(self, prefix: str) -> Iterator[str]:
        return iter(self._request(f"list {prefix}", lambda: [*self.world.folders(prefix)]))

    def delete(self, key: str) -> None:
        return self._request(f"delete {key}", lambda: self.world.delete(key))

    def monotonic(self) -> float:
        return self.world.seconds

    def sleep(self, seconds: float) -> None:
        self.asleep_until = self.world.seconds + seconds
        self._wait("sleep")

    def _request(self, request: str, perform: Callable[[], T]) -> T:
        self._wait(request)
        answer = perform()
        if self.kill_after:
            raise Killed
        return answer

    def _wait(self, request: str) -> None:
        self.pending = request
        self.waiting_since = self.world.seconds
        self._stopped.release()
        assert self._go.acquire(timeout=DEADLINE)
        if self.kill:
            raise Killed

    # --- the test's side --------------------------------------------------------------------------

    def start(self, run: Callable[[Program], None]) -> None:
        """Run until the first request."""
        self.began_at = self.world.seconds

        def body() -> None:
            _here.program = self
            try:
                run(self)
            except Killed:
                pass
            except BaseException as error:  # noqa: BLE001 - told to the test's thread
                self.fault = error
            self.ended = True
            self._stopped.release()

        threading.Thread(target=body, daemon=True, name=self.name).start()
        assert self._stopped.acquire(timeout=DEADLINE)

    @property
    def ready(self) -> bool:
        """Whether it could go on now."""
        return not self.ended and self.asleep_until <= self.world.seconds

    def step(self, *, kill: bool = False, kill_after: bool = False) -> None:
        """Let it make its request and go on to the next one."""
        self.kill, self.kill_after = kill, kill_after
        self._go.release()
        assert self._stopped.acquire(timeout=DEADLINE)
        if self.fault is not None:
            raise self.fault

    def run_until(self, request: str) -> None:
        """Let it go on until it is about to make a request that begins so, or has ended."""
        while not self.ended and not self.pending.startswith(request):
            if not self.ready:
                self.world.seconds = self.asleep_until
            self.step()

    def run(self) -> None:
        """Let it go on to its end; time passes where it sleeps."""
        self.run_until("-")

    @property
    def bound(self) -> float:
        """The second beyond which time cannot pass while this program has not gone on."""
        if self.ended:
            return float("inf")
        if self.pending.startswith("delete blobs/"):
            return self.waiting_since + LONGEST_REQUEST
        return self.began_at + LONGEST_CHANGE if self.is_change else float("inf")


_here = threading.local()


class ProgramTime:
    """Stands for the module `time` in code under test: a program's time is its world's."""

    @staticmethod
    def monotonic() -> float:
        program: Program | None = getattr(_here, "program", None)
        return program.monotonic() if program else time.monotonic()

    @staticmethod
    def sleep(seconds: float) -> None:
        program: Program = _here.program
        program.sleep(seconds)


def pass_time(world: World, programs: list[Program], seconds: float) -> None:
    """Let time pass, but not so much that a program's assumption about time would break."""
    bound = min((program.bound for program in programs), default=float("inf"))
    world.seconds = max(world.seconds, min(world.seconds + seconds, bound))
