"""Models that were valid once: bytes changed at random, and fields changed to what nobody expects there."""

from __future__ import annotations

import random
from collections.abc import Callable

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import ModelProto

_NUMBERS = [0, 1, -1, 2, 7, 13, 127, 2**15, 2**31 - 1, -(2**31), 2**40, 2**62, 2**63 - 1, -(2**63)]
_FLOATS = [0.0, -1.0, 1e30, float("inf"), float("nan")]
_INT32 = {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_ENUM}


def changed_bytes(data: bytes, chance: random.Random) -> bytes:
    """Flips, and now and then a piece doubled, cut out or put at the end."""
    changed = bytearray(data)
    at, length = chance.randrange(len(changed)), chance.randint(1, 40)
    match chance.randrange(6):
        case 0 | 1 | 2:
            changed[at] ^= 1 << chance.randrange(8)
        case 3:
            changed[at:at] = changed[at : at + length]
        case 4:
            del changed[at : at + length]
        case 5:
            changed += changed[at : at + length]
    return bytes(changed) or b"\0"


def changed_fields(data: bytes, chance: random.Random) -> bytes:
    """One to three fields of the model changed, dropped or doubled; protobuf still reads it."""
    model = ModelProto.FromString(data)
    for _ in range(chance.randint(1, 3)):
        message = _any_message(model, chance)
        fields = message.ListFields()
        if fields:
            descriptor, value = chance.choice(fields)
            _change(message, descriptor, value, chance)
    return model.SerializeToString()


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    changed_bytes,
    changed_fields,
    changed_fields,
)


def _any_message(message: Message, chance: random.Random) -> Message:
    """A message inside of `message`, deep ones as likely as it gets by going on with 5 chances in 6."""
    while chance.randrange(6):
        inner = [item for descriptor, value in message.ListFields() for item in _messages(descriptor, value)]
        if not inner:
            break
        message = chance.choice(inner)
    return message


def _messages(descriptor: FieldDescriptor, value: object) -> list[Message]:
    if descriptor.cpp_type != FieldDescriptor.CPPTYPE_MESSAGE:
        return []
    return list(value) if descriptor.label == FieldDescriptor.LABEL_REPEATED else [value]  # type: ignore[call-overload,list-item]


def _change(message: Message, descriptor: FieldDescriptor, value: object, chance: random.Random) -> None:
    name = descriptor.name
    repeated = descriptor.label == FieldDescriptor.LABEL_REPEATED
    if chance.randrange(5) == 0 or (descriptor.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE and not repeated):
        message.ClearField(name)
        return
    if repeated:
        items = getattr(message, name)
        if descriptor.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            items.add().CopyFrom(chance.choice(list(items)))
        elif chance.randrange(2):
            items[chance.randrange(len(items))] = _other(descriptor, items[0], chance)
        else:
            items.append(_other(descriptor, items[0], chance))
        return
    setattr(message, name, _other(descriptor, value, chance))


def _other(descriptor: FieldDescriptor, value: object, chance: random.Random) -> object:
    """Another value of the same type."""
    if descriptor.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return chance.choice(list(descriptor.enum_type.values_by_number))
    if isinstance(value, float):
        return chance.choice(_FLOATS)
    if isinstance(value, int):
        fitting = [number for number in _NUMBERS if descriptor.cpp_type not in _INT32 or abs(number) < 2**31]
        return chance.choice(fitting)
    texts = ["", "x", "y", "Identity", "ConstantOfShape", "Reshape", "Expand", "Gather", "Loop", "a" * 5000]
    text = chance.choice(texts)
    if isinstance(value, bytes):
        return chance.choice([text.encode(), value + value, value[: len(value) // 2], b"\xff" * len(value)])
    return text
