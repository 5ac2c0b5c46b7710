"""Checks of data against what the model takes; every error says where and how to mend it."""

from __future__ import annotations

__all__ = [
    "as_array",
    "check_dtype",
    "check_names",
    "check_shape",
    "conform",
    "convert",
    "shape_error",
]

import difflib
import itertools
import math
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from onnx_sipp.calibration.specs import Array, Dim, InputSpec, fits, show_shape
from onnx_sipp.errors import SippError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def check_names(present: Collection[str], specs: Sequence[InputSpec], where: str) -> list[str]:
    """Check that there is an array for every input that is not optional.

    Args:
        present: The names that the data has.
        specs: The inputs of the model.
        where: The place of the data, for the message.

    Returns:
        The names that are no inputs, sorted.

    Raises:
        SippError: If an input has no array.
    """
    wanted = [spec.name for spec in specs]
    missing = [spec.name for spec in specs if spec.name not in present and not spec.optional]
    extra = sorted(map(str, set(present) - set(wanted)))
    if not missing:
        return extra
    found = ", ".join(map(repr, sorted(map(str, present)))) or "nothing"
    guesses = [(name, _similar(name, extra)) for name in missing]
    if len(missing) == len(extra) == 1:
        guesses = [(missing[0], extra[0])]
    hints = [f" Did you mean {guess!r} for {name!r}?" for name, guess in guesses if guess]
    raise SippError(
        f"{where}: no array for input {', '.join(map(repr, missing))} of the model; "
        f"found {found}.{''.join(hints)} Give each array the name of its input, "
        f"e.g. np.savez(file, **{{{missing[0]!r}: array}})"
    )


def _similar(name: str, candidates: Sequence[str]) -> str | None:
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[close[0]] if close else None


def as_array(value: Any, spec: InputSpec, where: str) -> Array:
    """Make an array of a value that Python code handed over.

    Raises:
        SippError: If it is not array-like.
    """
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise SippError(
            f"{where}: input {spec.name!r} must be an array, but its {type(value).__name__} "
            f"cannot be made one: {error}"
        ) from error


def _kind(dtype: np.dtype[Any]) -> str:
    if dtype == _BFLOAT16:  # numpy itself takes it for raw bytes
        return "float"
    return {"f": "float", "i": "int", "u": "int", "b": "bool"}.get(dtype.kind, "other")


def _is_raw_bfloat16(dtype: np.dtype[Any], spec: InputSpec) -> bool:
    """Whether this is what np.save makes of bfloat16: two bytes without a type."""
    return spec.dtype == _BFLOAT16 and dtype.kind == "V" and dtype.itemsize == 2


def check_dtype(dtype: np.dtype[Any], spec: InputSpec, where: str) -> None:
    """Check that arrays of this type can be fed without changing what they mean.

    Floats of any width may be fed to floats and integers to integers; whether the values fit is
    seen when they are converted.

    Raises:
        SippError: If not.
    """
    kind = _kind(dtype)
    if (kind == _kind(spec.dtype) and kind != "other") or _is_raw_bfloat16(dtype, spec):
        return
    wanted = spec.dtype.name
    if dtype.hasobject:
        mend = "Python objects cannot be fed: make one plain array of numbers, e.g. with np.stack"
    elif kind == "other":
        mend = f"Give numbers, e.g. an array made with dtype={_code(spec.dtype)}"
    elif dtype == np.uint8 and _kind(spec.dtype) == "float":
        mend = (
            "These look like image bytes: scale and normalise them as in training, "
            f"e.g. `(array / 255).astype({_code(spec.dtype)})`"
        )
    else:
        mend = f"If the values are meant so, convert them: `array.astype({_code(spec.dtype)})`"
    raise SippError(f"{where}: input {spec.name!r} must be {wanted}, but it is {dtype}. {mend}")


def _code(dtype: np.dtype[Any]) -> str:
    module = "ml_dtypes" if dtype == _BFLOAT16 else "np"
    return f"{module}.{'bool_' if dtype == np.bool_ else dtype.name}"


def check_shape(shape: Sequence[int], spec: InputSpec, where: str) -> None:
    """Check the shape of an array that is fed as it is.

    Raises:
        SippError: If the model does not take it, or it holds no sample.
    """
    if not fits(shape, spec.shape):
        raise shape_error(shape, spec, spec.shape or (), where)
    if shape and shape[0] == 0 and not (spec.shape and spec.shape[0] == 0):
        raise SippError(f"{where}: input {spec.name!r} has shape {show_shape(shape)}: no sample")


def shape_error(
    shape: Sequence[int], spec: InputSpec, dims: Sequence[Dim], where: str
) -> SippError:
    """Make the error for an array whose shape does not fit.

    Args:
        shape: The shape of the array.
        spec: The input it is meant for.
        dims: The dimensions that the array should have had.
        where: The place of the array.

    Returns:
        The error, with a line of code that mends the array where one is known.
    """
    mend = _mend_shape(shape, dims)
    return SippError(
        f"{where}: input {spec.name!r} must have shape {show_shape(dims)}, "
        f"but it has {show_shape(shape)}" + (f". Try `{mend}`" if mend else "")
    )


def _mend_shape(shape: Sequence[int], dims: Sequence[Dim]) -> str | None:
    if fits((1, *shape), dims):
        return "array[np.newaxis]"
    if len(shape) == len(dims) <= 6:  # channels-last images are the usual case
        for axes in itertools.permutations(range(1, len(shape))):
            if fits([shape[axis] for axis in (0, *axes)], dims):
                return f"array.transpose({', '.join(map(str, (0, *axes)))})"
    sizes = [dim for dim in dims[1:] if isinstance(dim, int)]
    row = list(shape[1:])
    static = len(sizes) + 1 == len(dims) and 0 not in sizes
    if static and len(shape) > 0 and row != sizes and math.prod(row) == math.prod(sizes):
        return f"array.reshape({', '.join(map(str, (-1, *sizes)))})"
    return None


def convert(block: Array, spec: InputSpec, where: str, first: int | None = None) -> Array:
    """Bring values to the type of the input and check that they survive it.

    Args:
        block: An array whose type :func:`check_dtype` let pass.
        spec: The input it is for.
        where: Its place, for messages.
        first: The number of the first sample where the leading axis counts samples.

    Returns:
        A C-ordered array of the input's type; the block itself where nothing had to be done.

    Raises:
        SippError: If a float is NaN or infinite, or a value does not fit the type.
    """
    if _is_raw_bfloat16(block.dtype, spec):
        block = block.view(spec.dtype)
    if block.dtype == spec.dtype and block.flags.c_contiguous:
        cast = block  # the usual case, once per sample and pass: no time to lose
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            cast = np.asarray(block, dtype=spec.dtype, order="C")
    if _kind(spec.dtype) == "float":
        good = np.isfinite(cast)
    elif block.dtype != spec.dtype and _kind(spec.dtype) == "int":
        # The sign tells apart what a round trip between int64 and uint64 does not.
        good = (cast.astype(block.dtype) == block) & ((cast < 0) == (block < 0))
    else:
        return cast
    if not good.all():
        raise _value_error(block, good, spec, where, first)
    return cast


def _value_error(
    block: Array, good: Array, spec: InputSpec, where: str, first: int | None
) -> SippError:
    index = [int(i) for i in np.unravel_index(int(np.argmin(good)), good.shape)]
    value = block[tuple(index)]
    if first is not None:
        where = f"{where}, sample {first + index.pop(0)}"
    if _kind(spec.dtype) == "float" and not np.isfinite(value):
        mend = "Every value must be finite: replace it or leave the sample out"
    else:
        mend = f"That does not fit {spec.dtype.name}: scale or clip the values"
    place = f" at {index}" if index else ""
    return SippError(f"{where}: input {spec.name!r} holds {value}{place}. {mend}")


def conform(value: Any, spec: InputSpec, where: str) -> Array:
    """Check one value that is fed as it is, and bring it to the type of its input.

    Args:
        value: An array or what numpy makes one of.
        spec: The input it is for.
        where: Its place, for messages.

    Returns:
        The array to feed.

    Raises:
        SippError: If it cannot be fed.
    """
    array = as_array(value, spec, where)
    check_dtype(array.dtype, spec, where)
    check_shape(array.shape, spec, where)
    return convert(array, spec, where)
