"""Lets a call pass, or says why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime

from ferryline.grpc_server.errors import ForbiddenError, UnauthenticatedError, shortened
from ferryline.grpc_server.security.rights import rights_for
from ferryline.grpc_server.security.tokens import TokenEntry, Tokens
from ferryline.registry.documents import utc_now

HEADER = "authorization"
_SCHEME = "bearer "
_KEPT_HEADERS = 4096


class Guard:
    """Asks each call for its token; to be used on the event loop.

    Args:
        tokens: gives the tokens that are known now.
        open_health: whether health and readiness are told without one.
        now: the time.
    """

    def __init__(
        self,
        tokens: Callable[[], Tokens],
        *,
        open_health: bool = True,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._tokens = tokens
        self._open_health = open_health
        self._now = now
        self._known_of = tokens()
        self._known: dict[str, TokenEntry] = {}
        self._passed: dict[tuple[str, str | None], TokenEntry] = {}
        self.refused: Counter[str] = Counter()
        """Calls refused, by `unauthenticated` and `forbidden`."""

    def is_open(self, rpc: str) -> bool:
        """Whether everyone may call `rpc`."""
        return not rights_for(rpc, open_health=self._open_health)

    def admit(self, rpc: str, header: str | None) -> str | None:
        """The name of the caller, who may call `rpc`; None where anyone may and this one does not say who.

        Args:
            rpc: the RPC's name, without its service.
            header: the header `authorization`, None where there is none.

        Raises:
            UnauthenticatedError: no token came, or none that is valid here.
            ForbiddenError: the token does not allow it.
        """
        entry = self._passed.get((rpc, header))
        if entry is not None and self._tokens() is self._known_of and not self._is_over(entry):
            return entry.name
        needed = rights_for(rpc, open_health=self._open_health)
        if not needed:
            return self.caller(header)
        entry = self._entry(header)
        if entry is None:
            self.refused["unauthenticated"] += 1
            raise UnauthenticatedError(
                "this server wants a token: send the header 'authorization: Bearer TOKEN'"
                if header is None
                else "the token is not known here, or its time is over"
            )
        if not entry.rights & needed:
            self.refused["forbidden"] += 1
            rights = " or ".join(sorted(needed))
            raise ForbiddenError(
                f"token {entry.name!r} may not call {shortened(rpc)}: it needs the right {rights}"
            )
        if len(self._passed) < _KEPT_HEADERS:
            self._passed[rpc, header] = entry
        return entry.name

    def caller(self, header: str | None) -> str | None:
        """The name of whoever sends that header; None for nobody known."""
        entry = self._entry(header)
        return None if entry is None else entry.name

    def _entry(self, header: str | None) -> TokenEntry | None:
        if header is None:
            return None
        tokens = self._tokens()
        if tokens is not self._known_of:
            self._known_of, self._known, self._passed = tokens, {}, {}
        entry = self._known.get(header)
        if entry is None:
            entry = self._found(header, tokens)
        return None if entry is None or self._is_over(entry) else entry

    def _is_over(self, entry: TokenEntry) -> bool:
        return entry.not_after is not None and self._now() >= entry.not_after

    def _found(self, header: str, tokens: Tokens) -> TokenEntry | None:
        if header[: len(_SCHEME)].lower() != _SCHEME:
            return None
        entry = tokens.find(header[len(_SCHEME) :].strip())
        if entry is not None and len(self._known) < _KEPT_HEADERS:  # what is wrong is never kept
            self._known[header] = entry
        return entry
