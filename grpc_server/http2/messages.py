"""gRPC's messages in the data of a stream: a byte that says whether one is packed, its size, its bytes.

Source: the gRPC protocol over HTTP/2, "Length-Prefixed-Message".
"""

from __future__ import annotations

from struct import Struct

from ferryline.grpc_server.errors import InvalidRequestError, TooLargeError

_PREFIX = Struct(">BI")
PREFIX_BYTES = _PREFIX.size


def framed(message: bytes) -> bytes:
    """A message as it is sent, never packed."""
    return _PREFIX.pack(0, len(message)) + message


def only_message(data: bytes) -> bytes | None:
    """The message that `data` is, where it is one and nothing more."""
    size = len(data) - PREFIX_BYTES
    if size < 0 or int.from_bytes(data[1:PREFIX_BYTES], "big") != size or data[0] > 1:
        return None
    return data[PREFIX_BYTES:]


class MessageReader:
    """Cuts a stream's data into messages.

    Args:
        most: bytes of the largest message that is taken.
    """

    __slots__ = ("_buffer", "_most", "_needed")

    def __init__(self, most: int) -> None:
        self._most = most
        self._buffer = bytearray()
        self._needed = PREFIX_BYTES

    @property
    def held(self) -> int:
        """Bytes of a message that is not whole yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole now.

        Raises:
            TooLargeError: one is larger than is taken; said before it has come.
            InvalidRequestError: this is no gRPC.
        """
        self._buffer += data
        found = []
        while len(self._buffer) >= self._needed:
            if self._needed == PREFIX_BYTES and not self._begun():
                break
            found.append(bytes(memoryview(self._buffer)[PREFIX_BYTES : self._needed]))
            del self._buffer[: self._needed]
            self._needed = PREFIX_BYTES
        return found

    def _begun(self) -> bool:
        """Read a prefix; whether its message is whole."""
        packed, size = _PREFIX.unpack_from(self._buffer)
        if packed > 1:
            raise InvalidRequestError("the data of the call are no gRPC messages")
        if size > self._most:
            raise TooLargeError(
                f"the message is larger than this server takes: {size} bytes, {self._most} allowed "
                "(--max-message-mib)"
            )
        self._needed = PREFIX_BYTES + size
        return len(self._buffer) >= self._needed
