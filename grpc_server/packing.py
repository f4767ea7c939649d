"""Messages that callers packed with gzip or deflate: unpacked here, and no further than the server takes.

A few KiB may become GiB, so the size is looked at while they do. A packed message says so itself: no message
of the protocol has a field 3 of wire type 7, which is no wire type, nor a field 15, so none begins as gzip or
zlib does.
"""

from __future__ import annotations

import asyncio
import zlib

from ferryline.grpc_server.errors import TooLargeError

FIRST_BYTES = (b"\x1f", b"\x78")
"""How gzip and zlib begin; to be looked at for every message, which must cost next to nothing."""

AT_ONCE = 2**16
"""Bytes unpacked on the event loop; what is longer goes on on a thread."""

_EITHER = zlib.MAX_WBITS | 32


class Unpacker:
    """Unpacks messages, long ones one after the other, so that many at once take the room of one.

    Args:
        most: bytes of the largest message.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._turn = asyncio.Semaphore(1)

    async def unpack(self, data: bytes) -> bytes:
        """The message in `data`; `data` itself if it holds none, for whoever parses it to say so.

        Raises:
            TooLargeError: it is larger than the server takes.
        """
        stream = zlib.decompressobj(_EITHER)
        try:
            begin = stream.decompress(data, AT_ONCE)
            if stream.eof:
                return self._allowed(begin)
            async with self._turn:
                # one byte more than allowed, to know that there is more
                room = max(1, self._most + 1 - len(begin))
                rest, is_whole = await asyncio.to_thread(_rest, stream, room)
        except zlib.error:
            return data
        found = self._allowed(begin + rest)
        return found if is_whole else data

    def _allowed(self, found: bytes) -> bytes:
        if len(found) > self._most:
            raise TooLargeError(
                f"the message is larger than this server takes, once unpacked: {self._most} bytes "
                "(--max-message-mib)"
            )
        return found


def _rest(stream: zlib._Decompress, room: int) -> tuple[bytes, bool]:
    return stream.decompress(stream.unconsumed_tail, room), stream.eof


def beginning(data: bytes) -> bytes:
    """The first bytes of a message, unpacked if it is packed."""
    if data[:1] not in FIRST_BYTES:
        return data
    try:
        return zlib.decompressobj(_EITHER).decompress(data, AT_ONCE)
    except zlib.error:
        return data
