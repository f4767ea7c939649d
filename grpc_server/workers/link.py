"""One end of the socket between a supervisor and a worker."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

from pydantic import TypeAdapter

from ferryline.grpc_server.workers.framing import Unframer, framed
from ferryline.grpc_server.workers.messages import Message, decode, encode

CHUNK = 2**18

_M = TypeVar("_M")


class Link(Generic[_M]):
    """Sends messages, and receives those of one kind; to be used on one event loop."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: TypeAdapter[_M]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._kind = kind

    @classmethod
    async def over(cls, end: socket.socket, kind: TypeAdapter[_M]) -> Link[_M]:
        """A link over a connected socket, which it owns from then on."""
        reader, writer = await asyncio.open_unix_connection(sock=end)
        return cls(reader, writer, kind)

    def send(self, message: Message) -> None:
        """Send, or do nothing if the other side is gone: whoever receives hears of that."""
        if not self._writer.is_closing():
            self._writer.write(framed(encode(message)))

    async def messages(self) -> AsyncIterator[_M]:
        """What the other side says, until it is gone.

        Raises:
            FrameError: it does not keep to the form.
        """
        unframer = Unframer()
        while data := await self._read():
            for payload in unframer.feed(data):
                yield decode(self._kind, payload)

    async def _read(self) -> bytes:
        try:
            return await self._reader.read(CHUNK)
        except ConnectionError:
            return b""

    def close(self) -> None:
        """Say no more, and let the other side know once it has heard what was said."""
        self._writer.close()

    async def closed(self) -> None:
        """Close, and wait until the other side could hear all that was said."""
        self.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
