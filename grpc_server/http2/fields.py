"""Header blocks of HTTP/2 (HPACK, RFC 7541), where a call has the same fields as the one before it.

A block that adds nothing to the table means the same until one does, so its fields are looked up by its
bytes. What this server sends is one of a few blocks, which are kept likewise. Huffman codes, the table of
well-known fields and the writing itself are those of the package hpack, to which a property test holds this.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import Generic, TypeVar

from hpack import Encoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from ferryline.grpc_server.http2.errors import Code, ConnectionFaultError

Fields = list[tuple[bytes, bytes]]
Block = tuple[tuple[str, str | bytes], ...]

TABLE_BYTES = 4096
"""The table of either side, as RFC 7541 has it where nothing else is settled."""
MOST_FIELD_BYTES = 2**14
"""Names, values and 32 bytes for each field of one block; more is no call but an attack."""
KEPT_BLOCKS = 128

_STATIC: tuple[tuple[bytes, bytes], ...] = HeaderTable.STATIC_TABLE
_FIRST_DYNAMIC = len(_STATIC) + 1
_OVERHEAD = 32
_INDEXED, _LONG_INDEX = 0x80, 0xFF
"""A byte between them is a field of the table, and all of it."""
_MOST_INTEGER_BYTES = 5
_T = TypeVar("_T")


class FieldReader(Generic[_T]):
    """Reads the blocks of one side, in the order in which they came.

    Args:
        meaning: what fields mean to whoever reads them; asked once where the same block comes again.
    """

    def __init__(self, meaning: Callable[[Fields], _T]) -> None:
        self._meaning = meaning
        self._table: deque[tuple[bytes, bytes]] = deque()
        self._size = 0
        self._room = TABLE_BYTES
        self._known: dict[bytes, _T] = {}

    def read(self, block: bytes) -> _T:
        """The meaning of its fields.

        Raises:
            ConnectionFaultError: the block is damaged or too large, and the table is lost.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        try:
            fields, is_lasting = self._read(block)
        except IndexError:
            raise ConnectionFaultError(Code.COMPRESSION_ERROR, "a header block is damaged") from None
        meaning = self._meaning(fields)
        if is_lasting and len(self._known) < KEPT_BLOCKS:
            self._known[block] = meaning
        return meaning

    def _read(self, block: bytes) -> tuple[Fields, bool]:
        fields: Fields = []
        at, end, size, is_lasting = 0, len(block), 0, True
        while at < end:
            first = block[at]
            if first & 0x80:
                if _INDEXED < first < _LONG_INDEX:  # nearly all fields of nearly all blocks
                    place = first - _INDEXED - _FIRST_DYNAMIC
                    field = self._table[place] if place >= 0 else _STATIC[first - _INDEXED - 1]
                    at += 1
                else:
                    index, at = _integer(block, at, 0x7F)
                    field = self._entry(index)
            elif first & 0xE0 == 0x20:  # noqa: PLR2004 - the patterns of section 6
                at = self._resize(block, at, is_first=not fields)
                is_lasting = False
                continue
            else:
                is_added = first & 0xC0 == 0x40  # noqa: PLR2004 - likewise
                field, at = self._literal(block, at, 0x3F if is_added else 0x0F)
                if is_added:
                    self._add(field)
                    is_lasting = False
            fields.append(field)
            size += len(field[0]) + len(field[1]) + _OVERHEAD
            if size > MOST_FIELD_BYTES:
                raise ConnectionFaultError(Code.ENHANCE_YOUR_CALM, "the headers of a call are too large")
        return fields, is_lasting

    def _entry(self, index: int) -> tuple[bytes, bytes]:
        if 0 < index < _FIRST_DYNAMIC:
            return _STATIC[index - 1]
        place = index - _FIRST_DYNAMIC
        if 0 <= place < len(self._table):
            return self._table[place]
        raise ConnectionFaultError(Code.COMPRESSION_ERROR, "a header block names no field of the table")

    def _literal(self, block: bytes, at: int, mask: int) -> tuple[tuple[bytes, bytes], int]:
        index, at = _integer(block, at, mask)
        if index:
            name = self._entry(index)[0]
        else:
            name, at = _string(block, at)
        value, at = _string(block, at)
        return (name, value), at

    def _add(self, field: tuple[bytes, bytes]) -> None:
        self._known.clear()
        self._table.appendleft(field)
        self._size += len(field[0]) + len(field[1]) + _OVERHEAD
        self._evict()

    def _resize(self, block: bytes, at: int, *, is_first: bool) -> int:
        room, at = _integer(block, at, 0x1F)
        if room > TABLE_BYTES or not is_first:
            raise ConnectionFaultError(Code.COMPRESSION_ERROR, "a header block asks for too large a table")
        self._known.clear()
        self._room = room
        self._evict()
        return at

    def _evict(self) -> None:
        while self._size > self._room:
            name, value = self._table.pop()
            self._size -= len(name) + len(value) + _OVERHEAD


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """Section 5.1: the number that begins in `mask` of a byte, and where what follows begins."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for position in range(_MOST_INTEGER_BYTES):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << (7 * position)
        if not byte & 0x80:
            return value, at
    raise ConnectionFaultError(Code.COMPRESSION_ERROR, "a number in a header block is too large")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    """Section 5.2: the text that begins there, and where what follows begins."""
    is_packed = block[at] & 0x80
    size, at = _integer(block, at, 0x7F)
    end = at + size
    if end > len(block):
        raise ConnectionFaultError(Code.COMPRESSION_ERROR, "a header block is cut off")
    text = block[at:end]
    return (_unpacked(text) if is_packed else text), end


@lru_cache(maxsize=1024)
def _unpacked(text: bytes) -> bytes:
    if len(text) <= _SHORT_TEXT:
        found = _unpacked_quickly(text)
        if found is not None:
            return found
    try:
        return bytes(decode_huffman(text))
    except Exception as error:  # hpack has errors of its own, and lets some of Python's pass
        raise ConnectionFaultError(Code.COMPRESSION_ERROR, "a text in a header block is damaged") from error


def _short_codes() -> list[tuple[int, int] | None]:
    """For each byte, the symbol whose code it begins with and the size of that; None where it is longer."""
    codes: list[tuple[int, int] | None] = [None] * 256
    for symbol, (code, size) in enumerate(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)):
        if size <= _BYTE:
            first = code << (_BYTE - size)
            codes[first : first + (1 << (_BYTE - size))] = [(symbol, size)] * (1 << (_BYTE - size))
    return codes


_BYTE = 8
_SHORT_TEXT = 32
"""Bytes; a number of so many bits is quick to shift."""
_SHORT_CODES = _short_codes()


def _unpacked_quickly(text: bytes) -> bytes | None:
    """Letters and digits have short codes, and Go's deadlines are new ones in every call; None for others."""
    found = bytearray()
    # the padding is less than a byte, of ones, which no code of up to seven bits is
    bits, after = int.from_bytes(text, "big") << _BYTE | 0xFF, _BYTE * len(text)
    while after > 0:
        entry = _SHORT_CODES[(bits >> after) & 0xFF]
        if entry is None:
            break
        symbol, size = entry
        if size > after:
            break
        found.append(symbol)
        after -= size
    is_padding = after < _BYTE and (bits >> _BYTE) & ((1 << after) - 1) == (1 << after) - 1
    return bytes(found) if is_padding else None


class FieldWriter:
    """Writes the blocks of this side; each must be sent, in the order in which they were written."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self._known: dict[Block, bytes] = {}

    def allow(self, table_bytes: int) -> None:
        """The other side keeps a table of so many bytes; more than ours is not used."""
        self._known.clear()
        self._encoder.header_table_size = min(table_bytes, TABLE_BYTES)

    def write(self, fields: Block) -> bytes:
        """The block that says these fields."""
        known = self._known.get(fields)
        if known is not None:
            return known
        block = bytes(self._encoder.encode(fields))
        # one byte for each field: the table had them all and is as before, so the same bytes say it again
        if len(block) != len(fields):
            self._known.clear()
        elif len(self._known) < KEPT_BLOCKS:
            self._known[fields] = block
        return block
