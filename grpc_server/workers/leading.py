"""A supervisor's channels: followed as ever, but loaded and offered by the workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ferryline.grpc_server.channels import FollowedChannel, Need
from ferryline.grpc_server.workers.crew import Crew
from ferryline.grpc_server.workers.messages import (
    Followed,
    Left,
    Offer,
    Prepare,
    Release,
    Told,
    ToWorker,
    Warm,
)
from ferryline.grpc_server.workers.rounds import Agreed, Deadly, Objected, Objection, Verdict
from ferryline.model_runtime.follower import Follower
from ferryline.model_runtime.follower.rules import Refusal
from ferryline.model_runtime.follower.stages import vanished
from ferryline.model_runtime.memory import session_bytes
from ferryline.model_runtime.served import ServedModel
from ferryline.registry.documents import ChannelEntry, Manifest
from ferryline.registry.errors import FerryError, RefusedError

if TYPE_CHECKING:
    from ferryline.grpc_server.offering import Offering
    from ferryline.model_runtime.session import OnnxSession

LOAD_SECONDS = 120.0
"""How long a worker may take to load a version that the gate has passed."""
OFFER_SECONDS = 10.0
"""How long a worker may take to serve what it has loaded."""

_T = TypeVar("_T")


class Lead:
    """A crew as followers' threads may use it.

    Args:
        crew: the workers.
        loop: the event loop they are led on.
    """

    def __init__(self, crew: Crew, loop: asyncio.AbstractEventLoop) -> None:
        self.crew = crew
        self._loop = loop

    def tell(self, message: ToWorker) -> None:
        """Tell all workers, after what they were told before."""
        with contextlib.suppress(RuntimeError):  # the loop is gone, and so are the workers
            self._loop.call_soon_threadsafe(self.crew.tell, message)

    def ask(self, message: Prepare | Offer, seconds: float) -> Verdict:
        """Ask all workers, and wait for what their answers mean; never on the event loop.

        Raises:
            FerryError: the server ends.
        """
        return self.wait_for(self.crew.ask(message, seconds), seconds * 2)

    def wait_for(self, work: Coroutine[Any, Any, _T], seconds: float) -> _T:
        """Wait for something that happens on the event loop.

        Raises:
            FerryError: the server ends.
        """
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)
        except (RuntimeError, TimeoutError, asyncio.CancelledError) as error:
            work.close()
            raise FerryError("the server is stopping") from error


class CrewSession:
    """Stands for the sessions that all workers have of one version, for as long as someone holds it.

    Attributes:
        number: what the workers call it.
        memory: bytes that it takes in each of them, as estimated from the file.
    """

    def __init__(self, number: int, memory: int) -> None:
        self.number = number
        self.memory = memory


class CrewLoader:
    """Has every worker load a version: the `Loader` of a supervisor.

    The file stays open here, and workers read it by that, so that one that starts later gets the same bytes
    whatever became of the cache.
    """

    def __init__(self, lead: Lead) -> None:
        self._lead = lead
        self._deadly: set[str] = set()

    def load(self, entry: ChannelEntry, manifest: Manifest, path: Path) -> OnnxSession:
        """See `Loader`; here it is warm then, too."""
        session, opened = self._held(path)
        question = Prepare(
            round=session.number, entry=entry, manifest=manifest, path=f"/proc/{os.getpid()}/fd/{opened}"
        )
        self._require(self._lead.ask(question, LOAD_SECONDS), manifest)
        return cast("OnnxSession", session)  # nothing is run here

    def warm(self, session: OnnxSession, manifest: Manifest) -> None:
        """Nothing: the workers did."""

    def _held(self, path: Path) -> tuple[CrewSession, int]:
        try:
            opened = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise vanished(path) from error
        session = CrewSession(self._lead.crew.number(), session_bytes(path))
        weakref.finalize(session, _let_go, self._lead, session.number, opened).atexit = False
        return session, opened

    def _require(self, verdict: Verdict, manifest: Manifest) -> None:
        match verdict:
            case Agreed():
                self._deadly.discard(manifest.digest)
            case Objected(objection):
                raise _as_error(objection)
            case Deadly(0):
                raise FerryError("no worker is up; the version is tried again")
            case Deadly(lost) if manifest.digest not in self._deadly:
                self._deadly.add(manifest.digest)
                raise FerryError(
                    f"{lost} workers ended while they loaded {manifest.version}; tried once more"
                )
            case Deadly(lost):
                raise RefusedError(
                    "crash", f"{lost} workers ended again while they loaded it", "Never serve this file"
                )


def _let_go(lead: Lead, number: int, opened: int) -> None:
    lead.tell(Release(session=number))
    os.close(opened)


def _as_error(objection: Objection) -> FerryError:
    if objection.gate is None:
        return FerryError(objection.reason)
    return RefusedError(objection.gate, objection.reason, objection.remedy)


@dataclass(frozen=True, slots=True)
class Announced:
    """What a supervisor knows of a version that workers offer."""

    served: ServedModel

    @property
    def session(self) -> OnnxSession:
        """What stands for theirs."""
        return self.served.session


class LeadChannel(FollowedChannel):
    """A channel that workers offer; on each swap it returns only when all of them do.

    Args:
        lead: the workers.
        follower: follows the channel; not started yet.
        need: what readiness asks of it.
    """

    def __init__(self, lead: Lead, follower: Follower, need: Need = Need.SERVES) -> None:
        super().__init__(follower, need)
        self._lead = lead
        lead.tell(Followed(model=self.model, channel=self.name, need=need.name))

    def swapped(self, served: ServedModel, seconds: float) -> None:
        """Have the workers serve it."""
        for each in self.follower.warm:
            self.counters.of_version(each.version)  # what they count of it is kept from now on
        self._tell()
        self._lead.ask(self._offered(served, seconds), OFFER_SECONDS)
        super().swapped(served, seconds)

    def polled(self) -> None:
        """Pass it on."""
        super().polled()
        self._tell()

    def refused(self, refusal: Refusal) -> None:
        """Pass it on."""
        super().refused(refusal)
        self._tell()

    def failed(self, reason: str) -> None:
        """Pass it on."""
        super().failed(reason)
        self._tell()

    def expired(self, fresh_until: datetime) -> None:  # noqa: ARG002 - the observer's form
        """Pass it on."""
        self._tell()

    def close(self) -> None:
        """Have nobody offer it."""
        super().close()
        self._lead.tell(Left(model=self.model, channel=self.name))

    def _tell(self) -> None:
        report = self.follower.report().model_copy(update={"answered": {}})
        since = None if self._failure is None else self._failure[1]
        self._lead.tell(Told(report=report, tried=self._tried, failing_since=since))

    def _offered(self, served: ServedModel, seconds: float) -> Offer:
        warm = [served, *(each for each in self.follower.warm if each is not served)]
        canary = None if served.canary is None else _number(served.canary.model)
        return Offer(
            round=self._lead.crew.number(),
            model=self.model,
            channel=self.name,
            warm=tuple(Warm(session=_number(each), entry=each.entry, since=each.since) for each in warm),
            canary=canary,
            seconds=seconds,
        )

    def _offer(self, served: ServedModel, known: Mapping[int, Offering]) -> Offering:  # noqa: ARG002 - as above
        return cast("Offering", Announced(served))  # whoever asks here asks which version serves


def _number(served: ServedModel) -> int:
    return cast("CrewSession", served.session).number


Maker = Callable[[Follower, Need], FollowedChannel]
