"""Which model a serialised request names: from its first bytes, since parsing it would copy its tensors."""

from __future__ import annotations

from dataclasses import dataclass

from ferryline.grpc_server.packing import beginning

_LONGEST = 200
_LENGTH_DELIMITED = 2
_MORE, _BITS = 0x80, 0x7F

_FIELDS = {
    "ModelInfer": (1, 2, 3),
    "ModelReady": (1, 2, 0),
    "ModelMetadata": (1, 2, 0),
    "ModelConfig": (1, 2, 0),
    "ModelStatistics": (1, 2, 0),
    "RepositoryModelLoad": (2, 0, 0),
    "RepositoryModelUnload": (2, 0, 0),
}
"""The numbers of the fields that hold model, version and id; 0 for none."""


@dataclass(frozen=True, slots=True)
class Heading:
    """What a request says of itself; empty where it does not."""

    model: str = ""
    version: str = ""
    request_id: str = ""


def heading_of(rpc: str, data: bytes) -> Heading:
    """The heading of a request; what no known serialiser would write that way is taken as empty."""
    numbers = _FIELDS.get(rpc)
    if numbers is None:
        return Heading()
    texts = _first_texts(beginning(data), max(numbers))
    return Heading(*(texts.get(number, "") for number in numbers))


def _first_texts(data: bytes, last: int) -> dict[int, str]:
    """The strings with which a message begins, by field, up to field number `last`."""
    texts: dict[int, str] = {}
    at = 0
    while at + 1 < len(data):
        number, kind = data[at] >> 3, data[at] & 7
        if kind != _LENGTH_DELIMITED or number > last or data[at] & _MORE:
            break
        size, start = _varint(data, at + 1)
        if size is None or start + size > len(data):
            break
        texts[number] = data[start : start + min(size, _LONGEST)].decode("utf-8", "replace")
        at = start + size
    return texts


def _varint(data: bytes, at: int) -> tuple[int | None, int]:
    value = shift = 0
    for position in range(at, min(at + 5, len(data))):
        value |= (data[position] & _BITS) << shift
        if not data[position] & _MORE:
            return value, position + 1
        shift += 7
    return None, at
