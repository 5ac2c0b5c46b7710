"""What kind of value each option of a configuration takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from onnx_sipp.errors import UsageError
from onnx_sipp.memory import read_size

__all__ = ["KINDS", "PATHS", "PLACES", "checked_kind"]

Check = Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _are_shapes(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(dims, list) and all(map(_is_count, dims)) for dims in value.values()
    )


def _are_pairs(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


_NUMBER = (_is_number, "a number")
_COUNT = (_is_count, "a whole number")
_TEXT = (_is_text, "a text")
_FLAG = (_is_flag, "true or false")
_TEXTS = (_are_texts, "a list of texts, like [a, b]")

KINDS: Mapping[str, tuple[Check, str]] = {
    "sparsity": _NUMBER,
    "epsilon": _NUMBER,
    "max_error": _NUMBER,
    "min_agreement": _NUMBER,
    "max_drop": _NUMBER,
    "eval_script": _TEXT,
    "masks": _TEXT,
    "delta": _NUMBER,
    "method": _TEXT,
    "pattern": _TEXT,
    "macs": _NUMBER,
    "latency": _NUMBER,
    "align": _COUNT,
    "allocation": _TEXT,
    "compensate": _TEXT,
    "rounds": _COUNT,
    "floor": _NUMBER,
    "candidates": _TEXTS,
    "new_biases": _FLAG,
    "dead_paths": _FLAG,
    "num_samples": _COUNT,
    "input_shapes": (_are_shapes, "shapes by name, like {x: [1, 3, 224, 224]}"),
    "exclude_nodes": _TEXTS,
    "exclude_op_types": _TEXTS,
    "include_nodes": _TEXTS,
    "include_op_types": _TEXTS,
    "include_tied": _FLAG,
    "batch_size": _COUNT,
    "threads": _COUNT,
    "providers": _TEXTS,
    "custom_ops": _TEXTS,
    "mask_input": _TEXT,
    "states": (_are_pairs, "outputs by input, like {h0: hn}"),
    "state_reset": _COUNT,
    "memory_limit": (lambda value: read_size(str(value)) is not None, "a size, like 2GB"),
    "workdir": _TEXT,
    "statistics": _TEXT,
    "scheduler": _TEXT,
    "quantize": _TEXT,
    "storage": _TEXT,
    "pack_values": _TEXT,
    "seed": _COUNT,
}
# Files that the command line opens.
PLACES: Mapping[str, tuple[Check, str]] = {"calib": _TEXT, "data_loader_script": _TEXT}
PATHS = ("calib", "data_loader_script", "eval_script", "masks", "workdir", "statistics")
_LISTS = tuple(name for name, kind in KINDS.items() if kind is _TEXTS)


def checked_kind(name: str, value: Any, folder: Path) -> Any:
    """The value of an option as `prune` takes it.

    Args:
        name: key of `KINDS` or `PLACES`.
        value: plain data.
        folder: of the configuration; paths are relative to it.

    Raises:
        UsageError: it is of another kind.
    """
    if name in _LISTS and isinstance(value, str):
        value = [value]
    check, what = {**KINDS, **PLACES}[name]
    if not check(value):
        raise UsageError(f"{name} must be {what}, not {value!r}")
    if name == "workdir":
        return folder / value
    if name in PATHS:
        return str(folder / value)
    if name == "custom_ops":
        return [str(folder / path) for path in value]
    if name == "memory_limit":
        return read_size(str(value))
    if name == "input_shapes":
        return {key: tuple(dims) for key, dims in value.items()}
    return value
