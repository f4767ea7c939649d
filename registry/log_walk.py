"""Walks a channel's log forward from a known entry, proving each entry by the one after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ferryline.registry.digests import digest_of
from ferryline.registry.documents import ChannelEntry
from ferryline.registry.errors import StoreUnreachableError, UntrustedAnswerError
from ferryline.registry.log import AppendLog


class Walk:
    """The entries of a log beyond a known one.

    Args:
        log: where they lie.
        decode: reads an entry's bytes, and raises where they are none of that number.
        require_link: raises where an entry, its second argument, does not name its first.
    """

    def __init__(
        self,
        log: AppendLog,
        decode: Callable[[int, bytes], ChannelEntry],
        require_link: Callable[[ChannelEntry, ChannelEntry], None],
    ) -> None:
        self._log = log
        self._decode = decode
        self._require_link = require_link

    def beyond(self, entry: ChannelEntry) -> Iterator[ChannelEntry]:
        """Yields the entries after `entry`, oldest first; see `Channel.walk`."""
        proven = entry
        latest: ChannelEntry | None = None
        while (data := self._read_on(latest or proven, again=latest is not None)) is not None:
            following, latest = self._linked_on(proven, latest, data)
            if latest is not None:
                yield latest
                proven = latest
            latest = following
        if latest is not None and (shown := self._log.read(latest.generation)) is not None:
            yield latest if digest_of(shown) == latest.digest else self._reread(proven, latest.generation)

    def _read_on(self, entry: ChannelEntry, *, again: bool) -> bytes | None:
        try:
            return self._log.read(entry.generation + 1)
        except StoreUnreachableError:
            if not again:  # nothing says that the store answers just now
                raise
            return self._log.read(entry.generation + 1)

    def _linked_on(
        self, proven: ChannelEntry, latest: ChannelEntry | None, data: bytes
    ) -> tuple[ChannelEntry, ChannelEntry | None]:
        """Returns the entry of `data`, and `latest`, which it follows and which was read once only."""
        before = latest or proven
        try:
            return self._linked(before, before.generation + 1, data), latest
        except UntrustedAnswerError:
            # of either a bit may have flipped on the way
            latest = None if latest is None else self._reread(proven, latest.generation)
            return self._reread(latest or proven, before.generation + 1), latest

    def _reread(self, before: ChannelEntry, number: int) -> ChannelEntry:
        return self._linked(before, number, self._log.require(number))

    def _linked(self, before: ChannelEntry, number: int, data: bytes) -> ChannelEntry:
        entry = self._decode(number, data)
        self._require_link(before, entry)
        return entry
