"""What the program, the keeper and a child say to each other; pure.

A request is one packet of JSON with open files: the pipe for the answer, the candidate, and its golden rows
if it has some. The answer is lines of JSON, written by the child and, once that has ended, by the keeper:

    {"stage": "parsed"}                                                the child begins a stage
    {"facts": {…}} or {"refusal": {"gate": …, "reason": …, "remedy": …}}     the child's verdict
    {"ending": {"code": 0, "signal": null, …}}                         how the child ended
    {"unavailable": "…"}                                               the keeper could start none

Nothing that a child says is believed unless it then ends in order, and what is not of this form is ignored:
a candidate may have got the better of it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self

import orjson
from pydantic import ValidationError

from ferryline.model_runtime.gate.errors import (
    ChildLostError,
    GateUnavailableError,
    KeeperLostError,
    not_judged,
)
from ferryline.model_runtime.gate.exhaustion import out_of_memory
from ferryline.model_runtime.gate.limits import GateLimits
from ferryline.registry.documents import ModelFacts
from ferryline.registry.error_kinds import is_exhaustion, is_memory_exhaustion
from ferryline.registry.errors import RefusedError

MAX_PACKET = 64 * 1024
MAX_ANSWER = 2 * 2**20
MAX_VERDICT = 2**20
HELLO = b"ready"

CRASH = "crash"
MEMORY = "memory"
TIME = "time"

_MAX_TEXT = 600
_LEAST_SHARE = 4
"""A child that got less than this part of one processor was kept waiting by the machine."""
_FROM_OUTSIDE = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})
_NO_CONTROL = dict.fromkeys((*range(32), 127), " ")


@dataclass(frozen=True, slots=True)
class Request:
    """A candidate to be judged.

    Args:
        size: its bytes.
        digest: what they must have.
        limits: what it may hold and use.
    """

    size: int
    digest: str
    limits: GateLimits

    def encode(self) -> bytes:
        """The packet that says it."""
        return orjson.dumps(asdict(self))

    @classmethod
    def decode(cls, packet: bytes) -> Self:
        """The request that a packet says."""
        fields = orjson.loads(packet)
        return cls(fields["size"], fields["digest"], GateLimits.decode(fields["limits"]))


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended.

    Args:
        code: its exit status, if it ended by itself.
        signal: what ended it, otherwise.
        overdue: the keeper ended it, because its time was up.
        grown: bytes of memory that it took, at its peak, beyond the keeper's own.
        stderr: the end of what it wrote to standard error.
        cpu_seconds: of processor time that it took.
    """

    code: int | None
    signal: int | None
    overdue: bool
    grown: int
    stderr: str
    cpu_seconds: float


# --- writing --------------------------------------------------------------------------------------


def encode_stage(stage: str) -> bytes:
    """The line that says which stage begins."""
    return _line({"stage": stage})


def encode_facts(facts: ModelFacts) -> bytes:
    """The line of a candidate that passed.

    Raises:
        RefusedError: the facts are too many to be told.
    """
    line = b'{"facts":' + facts.model_dump_json().encode() + b"}\n"
    if len(line) > MAX_VERDICT:
        raise RefusedError(
            "contract",
            f"it takes {len(line)} bytes to tell its inputs, outputs and classes",
            "Use fewer of them, with shorter names",
        )
    return line


def encode_refusal(refusal: RefusedError) -> bytes:
    """The line of a candidate that was refused; its words may come from the file, so they are tamed."""
    texts = {"gate": refusal.gate, "reason": tame(refusal.reason), "remedy": tame(refusal.remedy)}
    return _line({"refusal": texts})


def encode_ending(ending: Ending) -> bytes:
    """The last line; it begins a line of its own, whatever was written before."""
    return b"\n" + _line({"ending": asdict(ending)})


def encode_unavailable(reason: str) -> bytes:
    """The only line of an answer where no child could be started."""
    return _line({"unavailable": tame(reason)})


def tame(text: str) -> str:
    """One short line of printable text."""
    flat = " ".join(text[: 4 * _MAX_TEXT].translate(_NO_CONTROL).split())
    flat = flat.encode("utf-8", "replace").decode()
    return flat if len(flat) <= _MAX_TEXT else f"{flat[:_MAX_TEXT]} …"


def _line(value: dict[str, Any]) -> bytes:
    return orjson.dumps(value) + b"\n"


# --- reading --------------------------------------------------------------------------------------


def verdict(answer: bytes, request: Request) -> ModelFacts:
    """What an answer comes to.

    Raises:
        RefusedError: the candidate is refused, by a gate or by what it did to its child.
        ChildLostError: the machine is the more likely reason that there is no verdict.
        GateUnavailableError: nothing of the candidate was read.
        KeeperLostError: the answer has no end.
    """
    said: dict[str, Any] = {}
    for line in _lines(answer):
        said.update(line)
    ending = _ending(said.get("ending"))
    if ending is None and isinstance(said.get("unavailable"), str):
        raise GateUnavailableError(not_judged(said["unavailable"]))
    if ending is None:
        raise KeeperLostError("the process that judges models ended before it had answered")
    stage = said.get("stage")
    if ending.code != 0:
        if ending.code is not None and stage is None:  # nothing of the candidate was read
            why = f"its process ended before it began to judge: {tame(ending.stderr)}"
            raise GateUnavailableError(not_judged(why))
        raise _fault(ending, str(stage or "begun"), request)
    if "refusal" in said:
        raise _refusal(said["refusal"])
    try:
        return ModelFacts.model_validate(said.get("facts"))
    except ValidationError:
        raise _crash(f"its process gave an answer of no meaning when it was {stage}") from None


def _lines(answer: bytes) -> Iterator[dict[str, Any]]:
    for line in answer.split(b"\n"):
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(value, dict):
            yield value


def _ending(fields: Any) -> Ending | None:
    try:
        return Ending(**fields)
    except TypeError:
        return None


def _refusal(fields: Any) -> RefusedError:
    try:
        return RefusedError(str(fields["gate"]), str(fields["reason"]), str(fields["remedy"]))
    except (KeyError, TypeError):
        return _crash("its process gave an answer of no meaning")


def _fault(ending: Ending, stage: str, request: Request) -> RefusedError | ChildLostError:
    return _lost(ending, stage, request.limits) or _refused(ending, stage, request)


def _lost(ending: Ending, stage: str, limits: GateLimits) -> ChildLostError | None:
    """What may be no fault of the model's: it is refused only where it happens at each of several tries."""
    # a limit that a child runs into ends it by itself or by another signal, and no model sends signals
    if ending.overdue and ending.cpu_seconds < limits.wall_seconds / _LEAST_SHARE:
        share = f"{ending.cpu_seconds:.1f} s of processor time in {limits.wall_seconds:g} s"
        return ChildLostError(f"its process got only {share}, and was still being {stage}", TIME)
    if ending.overdue or (ending.code is not None and is_memory_exhaustion(ending.stderr)):
        return None
    if ending.signal == signal.SIGKILL:
        return ChildLostError(f"the system ended its process when it was {stage}", MEMORY)
    if ending.signal in _FROM_OUTSIDE:
        return ChildLostError(
            f"its process was ended by {_name_of(ending.signal)} when it was {stage}", CRASH
        )
    if is_exhaustion(ending.stderr) and not is_memory_exhaustion(ending.stderr):
        return ChildLostError(f"it ended when it was {stage}: {tame(ending.stderr)}", CRASH)
    return None


def _refused(ending: Ending, stage: str, request: Request) -> RefusedError:
    limits = request.limits
    if ending.overdue:
        return _too_slow(f"{limits.wall_seconds:g} s", stage)
    if ending.signal == signal.SIGXCPU:
        return _too_slow(f"{limits.cpu_seconds:g} s of processor time", stage)
    # libraries that do not expect to be refused memory die of it in other ways
    if is_memory_exhaustion(ending.stderr) or ending.grown > limits.memory_bytes(request.size) / 4:
        return out_of_memory(f"its process gave up when it was {stage}")
    if ending.signal is not None:
        return _crash(f"its process died of {_name_of(ending.signal)} when it was {stage}")
    return _crash(f"its process ended with status {ending.code} when it was {stage}: {tame(ending.stderr)}")


def _too_slow(allowed: str, stage: str) -> RefusedError:
    return RefusedError(
        TIME,
        f"it took more than {allowed}, and was still being {stage}",
        "Make the model smaller, or raise FERRY_GATE_WALL_SECONDS and FERRY_GATE_CPU_SECONDS",
    )


def _crash(reason: str) -> RefusedError:
    return RefusedError(CRASH, reason, "Never serve this file; export the model again in another way")


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
