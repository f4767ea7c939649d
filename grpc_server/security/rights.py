"""What callers may be allowed to do, and what each RPC asks for."""

from __future__ import annotations

from enum import StrEnum

REFLECTION = "ServerReflectionInfo"
HEALTH = frozenset({"Check", "Watch"})


class Right(StrEnum):
    """What a token may allow; neither includes the other."""

    INFER = "infer"
    ADMIN = "admin"


ANY_RIGHT = frozenset(Right)

_OPEN = frozenset({"ServerLive", "ServerReady", "ModelReady"}) | HEALTH

_ADMIN = frozenset(
    {"LogSettings", "RepositoryModelLoad", "RepositoryModelUnload", "TraceSetting", REFLECTION}
)
_INFER = frozenset({"ModelInfer", "ModelStreamInfer"})


def rights_for(rpc: str, *, open_health: bool = True) -> frozenset[Right]:
    """The rights of which a caller of `rpc` needs one; none for what anyone may ask.

    Metadata and statistics are for everyone who has a token.
    """
    if rpc in _OPEN:
        return frozenset() if open_health else ANY_RIGHT
    if rpc in _INFER:
        return frozenset({Right.INFER})
    if rpc in _ADMIN or "SharedMemory" in rpc:
        return frozenset({Right.ADMIN})
    return ANY_RIGHT
