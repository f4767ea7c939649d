"""What a supervisor and a worker tell each other, as JSON.

Begin, Listen, Drain                    when to start, to listen, to stop
Followed, Left, Told, Complete          which channels there are, and how following them goes
Prepare, Offer, Release                 a version is loaded, serves, is let go
Count, Counted                          what was counted
Totals, Summed, Load, Unload, Answered  what a caller's request needs the supervisor for
Hello, Listening, Unable                a worker is up, listens, cannot start
Done, Refused, Failed                   how the round of that number went here
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ferryline.grpc_server.workers.framing import FrameError
from ferryline.registry.documents import ChannelEntry, Manifest, ServedModelReport

Counts = dict[str, dict[int, tuple[int, ...]]]
"""What is counted, by MODEL:CHANNEL and version, each in the order of the fields of `VersionCounters`."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# --- from the supervisor --------------------------------------------------------------------------


class Begin(_Message):
    """The first message: who you are, the settings, and the ports that all workers share."""

    kind: Literal["begin"] = "begin"
    worker: int
    settings: dict[str, Any]
    port: int
    http_port: int | None


class Listen(_Message):
    """You have all that the others serve: take requests."""

    kind: Literal["listen"] = "listen"


class Drain(_Message):
    """Say NOT_SERVING, answer what is under way, and end."""

    kind: Literal["drain"] = "drain"


class Followed(_Message):
    """A channel is followed from now on; `need` is the name of one of `channels.Need`."""

    kind: Literal["followed"] = "followed"
    model: str
    channel: str
    need: str


class Left(_Message):
    """A channel is followed no more."""

    kind: Literal["left"] = "left"
    model: str
    channel: str


class Told(_Message):
    """How following a channel goes; `failing_since` is by the monotonic clock that all processes share."""

    kind: Literal["told"] = "told"
    report: ServedModelReport
    tried: bool
    failing_since: float | None


class Complete(_Message):
    """All models are here that were to be found at the start."""

    kind: Literal["complete"] = "complete"


class Unloaded(_Message):
    """Models that callers have unloaded."""

    kind: Literal["unloaded"] = "unloaded"
    names: tuple[str, ...]


class Prepare(_Message):
    """Load that version and run it once; answered by `Done`, `Refused` or `Failed`.

    `round` is the session's number from then on.
    """

    kind: Literal["prepare"] = "prepare"
    round: int
    entry: ChannelEntry
    manifest: Manifest
    path: str


class Warm(_Message):
    """A session that was prepared, and the generation that put it to serve."""

    session: int
    entry: ChannelEntry
    since: AwareDatetime


class Offer(_Message):
    """Serve the first of these, and its canary if there is one; answered by `Done`. The others are warm."""

    kind: Literal["offer"] = "offer"
    round: int
    model: str
    channel: str
    warm: tuple[Warm, ...] = Field(min_length=1)
    canary: int | None = None
    seconds: float


class Release(_Message):
    """Nothing will be offered of that session any more."""

    kind: Literal["release"] = "release"
    session: int


class Count(_Message):
    """Say what was counted; answered by `Counted`."""

    kind: Literal["count"] = "count"
    round: int


class Summed(_Message):
    """What all workers have counted, for `Totals`."""

    kind: Literal["summed"] = "summed"
    request: int
    counts: Counts


class Answered(_Message):
    """How the load or unload of that number went: nothing, or an error's name and text."""

    kind: Literal["answered"] = "answered"
    request: int
    error: str | None = None
    text: str = ""


# --- from a worker --------------------------------------------------------------------------------


class Hello(_Message):
    """Up, and able to load."""

    kind: Literal["hello"] = "hello"


class Listening(_Message):
    """Requests are taken."""

    kind: Literal["listening"] = "listening"


class Unable(_Message):
    """A start is not possible, for a reason that a user can mend; the worker ends."""

    kind: Literal["unable"] = "unable"
    reason: str


class Done(_Message):
    """That was done."""

    kind: Literal["done"] = "done"
    round: int


class Refused(_Message):
    """A version cannot serve, now or later."""

    kind: Literal["refused"] = "refused"
    round: int
    gate: str
    reason: str
    remedy: str


class Failed(_Message):
    """It went wrong, and may go right the next time."""

    kind: Literal["failed"] = "failed"
    round: int
    reason: str


class Counted(_Message):
    """What was counted: that which has changed since the last time; `metrics` is Prometheus' text."""

    kind: Literal["counted"] = "counted"
    round: int
    counts: Counts
    metrics: str
    cpu_seconds: float
    resident_bytes: int


class Totals(_Message):
    """Say what all workers have counted."""

    kind: Literal["totals"] = "totals"
    request: int


class Load(_Message):
    """A caller wants a model to be served."""

    kind: Literal["load"] = "load"
    request: int
    name: str
    seconds: float | None


class Unload(_Message):
    """A caller wants a model to be served no more."""

    kind: Literal["unload"] = "unload"
    request: int
    name: str


class Withdrawn(_Message):
    """Whoever asked for that load or unload is gone."""

    kind: Literal["withdrawn"] = "withdrawn"
    request: int


ToWorker = (
    Begin | Listen | Drain | Followed | Left | Told | Complete | Unloaded | Prepare | Offer | Release
    | Count | Summed | Answered
)  # fmt: skip
ToSupervisor = (
    Hello | Listening | Unable | Done | Refused | Failed | Counted | Totals | Load | Unload | Withdrawn
)
Message = ToWorker | ToSupervisor

_M = TypeVar("_M")

TO_WORKER: TypeAdapter[ToWorker] = TypeAdapter(Annotated[ToWorker, Field(discriminator="kind")])
TO_SUPERVISOR: TypeAdapter[ToSupervisor] = TypeAdapter(Annotated[ToSupervisor, Field(discriminator="kind")])


def encode(message: Message) -> bytes:
    """A message as JSON."""
    return message.model_dump_json().encode()


def decode(kind: TypeAdapter[_M], payload: bytes) -> _M:
    """A message out of JSON.

    Raises:
        FrameError: it is none of that kind.
    """
    try:
        return kind.validate_json(payload)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise FrameError(f"no message: {fault['msg']}") from error
