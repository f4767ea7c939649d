"""Tells the registry what this process serves, so that `ferry status` can show it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence

import structlog

from ferryline.model_runtime.follower import Follower, FollowerObserver
from ferryline.model_runtime.follower.rules import Refusal
from ferryline.model_runtime.served import ServedModel
from ferryline.model_runtime.supervised import SupervisedThread
from ferryline.registry.catalogue import Registry
from ferryline.registry.documents import Heartbeat, utc_now
from ferryline.registry.errors import FerryError

INTERVAL = 5.0
"""Seconds between two heartbeats where nothing changes."""

log = structlog.get_logger(__name__)


class HeartbeatReporter(FollowerObserver):
    """Writes a heartbeat at every swap and refusal, and every `interval` seconds.

    To be made before the followers start. A store that is down costs a heartbeat and nothing else.

    Args:
        registry: where to write.
        consumer: this process's name among all consumers.
        role: what it is (`grpc`, `flink`).
        followers: what it serves.
        interval: seconds between heartbeats.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        consumer: str,
        role: str,
        followers: Sequence[Follower],
        interval: float = INTERVAL,
    ) -> None:
        self._consumers = registry.consumers
        self._consumer = consumer
        self._role = role
        self._followers: tuple[Follower, ...] = ()
        self._interval = interval
        self._started_at = utc_now()
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._thread = SupervisedThread(self._report, name="heartbeat", stopping=self._stopping)
        for follower in followers:
            self.follow(follower)

    def follow(self, follower: Follower) -> None:
        """Report `follower` too."""
        follower.observe(self)
        self._followers = (*self._followers, follower)

    def forget(self, follower: Follower) -> None:
        """Report `follower` no more."""
        self._followers = tuple(each for each in self._followers if each is not follower)
        self._news.set()

    def start(self) -> None:
        """Begin to report."""
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Stop reporting and take the heartbeat away."""
        self._stopping.set()
        self._news.set()
        self._thread.join(timeout)

    def swapped(self, served: ServedModel, seconds: float) -> None:  # noqa: ARG002 - the observer's form
        """Report at once."""
        self._news.set()

    def refused(self, refusal: Refusal) -> None:  # noqa: ARG002 - the observer's form
        """Report at once."""
        self._news.set()

    def _report(self) -> None:
        while not self._stopping.is_set():
            self._try(lambda: self._consumers.beat(self._heartbeat()))
            self._news.wait(self._interval)
            self._news.clear()
        self._try(lambda: self._consumers.leave(self._consumer))

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(
            consumer=self._consumer,
            role=self._role,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            at=utc_now(),
            interval_seconds=self._interval,
            models=tuple(follower.report() for follower in self._followers),
        )

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except FerryError as error:
            log.warning("no heartbeat was written", reason=str(error))
        except Exception:
            log.exception("unexpected fault in the heartbeat")
