"""Messages on a stream of bytes: four bytes of length, big-endian, then so many bytes of JSON."""

from __future__ import annotations

from collections.abc import Iterator

from ferryline.registry.errors import FerryError

LENGTH_BYTES = 4
LONGEST = 64 * 2**20
"""Bytes of one message; a manifest's golden rows are the most that one carries."""


class FrameError(FerryError):
    """What came over the socket is no message; whoever sent it is not to be trusted any more."""


def framed(payload: bytes) -> bytes:
    """A message as it goes over the socket.

    Raises:
        FrameError: it is too long.
    """
    if len(payload) > LONGEST:
        raise FrameError(f"a message of {len(payload)} bytes is longer than {LONGEST}")
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


class Unframer:
    """Finds the messages in bytes that come in pieces."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that `data` completes, in their order.

        Raises:
            FrameError: the next one would be too long.
        """
        self._pending += data
        while len(self._pending) >= LENGTH_BYTES:
            length = int.from_bytes(self._pending[:LENGTH_BYTES], "big")
            if length > LONGEST:
                raise FrameError(f"a message of {length} bytes is announced, longer than {LONGEST}")
            end = LENGTH_BYTES + length
            if len(self._pending) < end:
                return
            payload = bytes(self._pending[LENGTH_BYTES:end])
            del self._pending[:end]
            yield payload
