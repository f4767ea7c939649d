"""One call that has ended, as observers are told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

GRPC = "grpc"
HTTP = "http"


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call.

    Args:
        transport: `grpc` or `http`.
        rpc: the RPC's name, the same for both.
        status: its end, as the transport says it: `OK`, `NOT_FOUND`, `200`, `404`.
        failed: whether the caller got an error.
        began_ns: when it came, in nanoseconds of Unix time.
        seconds: how long it took.
        peer: who asked: a token's name, a certificate's, else an address.
        model: the model it names; empty for none.
        version: the version that answered, or else that was asked for; empty for neither.
        generation: the generation that answered; empty for none.
        request_id: the request's own id; empty for none.
        traceparent: the header of W3C Trace Context; None where there is none.
    """

    transport: str
    rpc: str
    status: str
    failed: bool
    began_ns: int
    seconds: float
    peer: str
    model: str = ""
    version: str = ""
    generation: str = ""
    request_id: str = ""
    traceparent: str | None = None


class Observer(Protocol):
    """Is told of calls on the event loop, and must be quick."""

    def wants(self, *, failed: bool) -> bool:
        """Whether it would be told of a call that has just ended so."""
        ...

    def ended(self, record: CallRecord) -> None:
        """A call has ended that it wanted to be told of."""
        ...


def wanting(observers: Sequence[Observer], *, failed: bool) -> list[Observer]:
    """Those to tell of a call; a record is made only if there are any."""
    return [observer for observer in observers if observer.wants(failed=failed)]
