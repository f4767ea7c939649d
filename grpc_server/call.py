"""What a handler may know of the call it answers, whatever transport carries it."""

from __future__ import annotations

from typing import Protocol

from ferryline.grpc_server.provenance import Provenance


class Call(Protocol):
    """One call under way."""

    def seconds_left(self) -> float | None:
        """Seconds until the caller stops waiting, None for never; work beyond that is for nobody."""
        ...

    def answered_by(self, provenance: Provenance) -> None:
        """Hear where the answer comes from, to say it beside the answer where the transport can."""
        ...


class Unbounded:
    """A call without a deadline, for a caller in this process."""

    def seconds_left(self) -> float | None:
        """None: it waits for ever."""
        return None

    def answered_by(self, provenance: Provenance) -> None:
        """It reads the answer's own words."""


UNBOUNDED = Unbounded()
