"""What kind of value each option takes, in a configuration or as a keyword."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from math import isfinite
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from onnx_sipp.errors import UsageError
from onnx_sipp.memory import read_size

__all__ = [
    "COUNT", "COUNTS", "FLAG", "FUNCTION", "KINDS", "NUMBER", "NUMBERS", "PATHS", "PLACES",
    "checked_keyword", "checked_kind", "read_as",
]  # fmt: skip

_LONGEST = 100  # of a value that a message shows

# Gives a value as it is kept, None if it is of another kind.
Reader = Callable[[Any], Any]
# That, and what it must be, for people.
Kind = tuple[Reader, str]


def _number(value: Any) -> int | float | None:
    """A number, numpy's too, as Python's, which reports can be made of."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    return int(value) if isinstance(value, Integral) else float(value)


def _count(value: Any) -> int | None:
    number = _number(value)
    return number if isinstance(number, int) else None


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, str) else None


def _flag(value: Any) -> bool | None:
    return bool(value) if isinstance(value, bool | np.bool_) else None


def _path(value: Any) -> str | Path | None:
    if isinstance(value, str):
        return value
    return Path(value) if isinstance(value, PathLike) else None


def _folder(value: Any) -> Path | None:
    return Path(value) if isinstance(value, str | PathLike) else None


def _function(value: Any) -> Any:
    return value if isinstance(value, str) or callable(value) else None


def _masks(value: Any) -> Any:
    return value if isinstance(value, str | Path | Mapping) else None


def _list_of(read: Reader) -> Reader:
    """Reads a list; a text or path alone is a list of one, not of its letters."""

    def read_all(value: Any) -> list[Any] | None:
        if isinstance(value, str | PathLike):
            value = [value]
        if isinstance(value, bytes | Mapping):
            return None
        try:
            values = [read(one) for one in value]
        except TypeError:  # one thing, not several
            return None
        return None if None in values else values

    return read_all


def _shapes(value: Any) -> dict[str, tuple[int, ...]] | None:
    if not isinstance(value, Mapping):
        return None
    shapes = {name: _list_of(_count)(dims) for name, dims in value.items()}
    return None if None in shapes.values() else {name: tuple(s) for name, s in shapes.items()}


def _pairs(value: Any) -> dict[str, str] | None:
    texts = isinstance(value, Mapping) and all(isinstance(t, str) for p in value.items() for t in p)
    return dict(value) if texts else None


def _size(value: Any) -> int | None:
    count = _count(value)
    return read_size(str(value)) if count is None else count


NUMBER = (_number, "a number")
NUMBERS = (_list_of(_number), "a list of numbers, like [0.5, 0.9]")
COUNT = (_count, "a whole number")
COUNTS = (_list_of(_count), "a list of whole numbers, like [1, 8]")
_TEXT = (_text, "a text")
FLAG = (_flag, "true or false")
_TEXTS = (_list_of(_text), "a list of texts, like [a, b]")
FUNCTION = (_function, "a text, like judge.py:accuracy, or a function")
_PATH = (_path, "a text, the path of a file")

KINDS: Mapping[str, Kind] = {
    "sparsity": NUMBER,
    "epsilon": NUMBER,
    "max_error": NUMBER,
    "min_agreement": NUMBER,
    "max_drop": NUMBER,
    "eval_script": FUNCTION,
    "masks": (_masks, "a text, the path of a file, or arrays by name of the layer"),
    "delta": NUMBER,
    "method": _TEXT,
    "pattern": _TEXT,
    "macs": NUMBER,
    "latency": NUMBER,
    "align": COUNT,
    "allocation": _TEXT,
    "compensate": _TEXT,
    "rounds": COUNT,
    "floor": NUMBER,
    "candidates": _TEXTS,
    "new_biases": FLAG,
    "dead_paths": FLAG,
    "num_samples": COUNT,
    "input_shapes": (_shapes, "shapes by name, like {x: [1, 3, 224, 224]}"),
    "exclude_nodes": _TEXTS,
    "exclude_op_types": _TEXTS,
    "include_nodes": _TEXTS,
    "include_op_types": _TEXTS,
    "include_tied": FLAG,
    "batch_size": COUNT,
    "threads": COUNT,
    "providers": _TEXTS,
    "custom_ops": (_list_of(_path), "a list of texts, like [a.so, b.so]"),
    "mask_input": _TEXT,
    "states": (_pairs, "outputs by input, like {h0: hn}"),
    "state_reset": COUNT,
    "memory_limit": (_size, "a size, like 2GB"),
    "workdir": (_folder, "a text, the path of a folder"),
    "statistics": _PATH,
    "scheduler": _TEXT,
    "quantize": _TEXT,
    "storage": _TEXT,
    "pack_values": _TEXT,
    "seed": COUNT,
}
# Files that the command line opens.
PLACES = ("calib", "data_loader_script")
PATHS = (*PLACES, "eval_script", "masks", "workdir", "statistics")


def checked_kind(name: str, value: Any, folder: Path) -> Any:
    """The value of an option of a configuration as `prune` takes it.

    Args:
        name: key of `KINDS`, or one of `PLACES`.
        value: plain data.
        folder: of the configuration; paths are relative to it.

    Raises:
        UsageError: it is of another kind.
    """
    kind = _TEXT if name in PATHS else KINDS[name]  # it can hold no functions or arrays
    read = read_as(kind, name, value)
    if name == "workdir":
        return folder / read
    if name in PATHS:
        return str(folder / read)
    if name == "custom_ops":
        return [str(folder / path) for path in read]
    return read


def checked_keyword(name: str, value: Any) -> Any:
    """The value of a keyword of `prune`, or of one like it of another function.

    Args:
        name: key of `KINDS`.
        value: anything; None, which stands for the default, stays.

    Raises:
        UsageError: it is of another kind.
    """
    return None if value is None else read_as(KINDS[name], name, value)


def read_as(kind: Kind, name: str, value: Any) -> Any:
    """A value as it is kept.

    Args:
        kind: that it must be of.
        name: of the option, for people.
        value: anything.

    Raises:
        UsageError: it is of another kind.
    """
    read, what = kind
    found = read(value)
    if found is not None:
        return found
    hint = "; leave the quotes out" if _is_quoted(read, value) else ""
    raise UsageError(f"{name} must be {what}, not {_shown(value)}{hint}")


def _is_quoted(read: Reader, value: Any) -> bool:
    """Whether a text is what is wanted, in quotes."""
    with suppress(ValueError):
        return isinstance(value, str) and read in (_number, _count) and isfinite(float(value))
    return False


def _shown(value: Any) -> str:
    """A value for people; it may be large."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
