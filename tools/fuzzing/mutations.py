"""How inputs are changed: bytes of any kind, and messages of a model by their structure."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from fuzzing.targets import parsed

__all__ = ["mutated", "mutated_bytes", "mutated_model"]

_INTEGERS = (0, 1, -1, 2, 7, 127, 128, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 62), -(1 << 63))
_FLOATS = (0.0, -0.0, 1.0, -1.5, 1e38, 1e-45, float("inf"), float("nan"))
_TEXTS = ("", "x", "w", "y", "\x1b[2J", "../w.data", "/etc/passwd", "a" * 300, "é", "Conv", "If",
          "MatMul", "Gemm", "com.microsoft", "ai.onnx", "Constant", "DequantizeLinear")  # fmt: skip
_PIECES = (
    *(b"\x00", b"\xff", b"\x7f", b"\x80\x80\x80\x80\x10", b"{", b"}", b"[", b": ", b"\n", b"-"),
    *(b"&a ", b"*a", b"!!python/object:os.system ", b"1e999", b"NaN", b"PK\x03\x04", b"../"),
)


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """Changes, cuts, doubles or puts in some bytes."""
    result = bytearray(data or b"\x00")
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        place = rng.randrange(len(result) + 1)
        size = rng.choice((1, 1, 2, 4, 16, 64))
        way = rng.randrange(5)
        if way == 0 and place < len(result):
            result[place] = rng.randrange(256)
        elif way == 1:
            del result[place : place + size]
        elif way == 2:
            result[place:place] = result[place : place + size]
        elif way == 3:
            result[place:place] = rng.choice(_PIECES)
        else:
            number = np.array(rng.choice(_INTEGERS)).astype(rng.choice(("i4", "i8", "i2")))
            result[place : place + number.nbytes] = number.tobytes()
    return bytes(result)


def mutated_model(data: bytes, rng: random.Random) -> bytes:
    """Changes some fields of a model, wherever they are; bytes that are no model as bytes."""
    model = parsed(data)
    if model is None or rng.random() < 0.1:
        return mutated_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        _change(_anywhere(model, rng), rng)
    return model.SerializeToString()


def mutated(name: str, data: bytes, rng: random.Random) -> bytes:
    """Changes the input of a target, by its name."""
    return mutated_model(data, rng) if name == "model" else mutated_bytes(data, rng)


def _anywhere(message: Message, rng: random.Random) -> Message:
    """A message inside of a message, or itself."""
    for _ in range(12):
        inner = [
            one
            for field, value in message.ListFields()
            if field.type == FieldDescriptor.TYPE_MESSAGE
            for one in (value if hasattr(value, "append") else [value])
        ]
        if not inner or rng.random() < 0.25:
            break
        message = rng.choice(inner)
    return message


def _change(message: Message, rng: random.Random) -> None:
    """Sets, clears, doubles or removes one field of a message."""
    field = rng.choice(message.DESCRIPTOR.fields)
    present = [found for found, _ in message.ListFields()]
    if present and rng.random() < 0.8:
        field = rng.choice(present)
    value = getattr(message, field.name)
    if rng.random() < 0.1:
        message.ClearField(field.name)
    elif hasattr(value, "append") or hasattr(value, "add"):
        _change_list(field, value, rng)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        value.SetInParent()
    else:
        setattr(message, field.name, _scalar(field, value, rng))


def _change_list(field: Any, value: Any, rng: random.Random) -> None:
    way = rng.randrange(3)
    if len(value) and way == 0:
        del value[rng.randrange(len(value))]
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        if len(value):
            value.add().CopyFrom(rng.choice(list(value)))
        else:
            value.add()
    elif len(value) and way == 1:
        place = rng.randrange(len(value))
        value[place] = _scalar(field, value[place], rng)
    elif len(value) < 1000:
        value.append(_scalar(field, None, rng))


def _scalar(field: Any, old: Any, rng: random.Random) -> Any:
    """A value of the type of a field, often an odd one."""
    kinds: dict[int, Callable[[], Any]] = {
        FieldDescriptor.TYPE_STRING: lambda: rng.choice(_TEXTS),
        FieldDescriptor.TYPE_BYTES: lambda: mutated_bytes(old or b"", rng),
        FieldDescriptor.TYPE_FLOAT: lambda: rng.choice(_FLOATS),
        FieldDescriptor.TYPE_DOUBLE: lambda: rng.choice(_FLOATS),
        FieldDescriptor.TYPE_ENUM: lambda: rng.choice(
            [one.number for one in field.enum_type.values]
        ),
    }
    if field.type in kinds:
        return kinds[field.type]()
    number = (
        rng.choice(_INTEGERS) if rng.random() < 0.7 or old is None else old + rng.choice((-1, 1))
    )
    bits = 31 if field.type in (FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_UINT32) else 63
    lowest = 0 if field.type in (FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_UINT64) else None
    return max(-(1 << bits) if lowest is None else lowest, min((1 << bits) - 1, number))
