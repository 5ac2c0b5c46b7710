"""What a model takes: one specification per runtime input."""

from __future__ import annotations

__all__ = [
    "Array",
    "Dim",
    "Feed",
    "InputSpec",
    "fits",
    "fix_shapes",
    "input_specs",
    "output_specs",
    "show_shape",
]

import difflib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt

from onnx_sipp.errors import SippError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx
    import onnxruntime

Array: TypeAlias = npt.NDArray[Any]
Feed: TypeAlias = dict[str, Array]
Dim: TypeAlias = int | str | None

# Other tensor types exist (strings, complex numbers, 8- and 4-bit floats), but no calibration
# data holds them and numpy cannot check them.
_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(bfloat16)": np.dtype(ml_dtypes.bfloat16),
    "tensor(bool)": np.dtype(np.bool_),
} | {
    f"tensor({name})": np.dtype(name)
    for name in (
        *("float16", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64"),
    )
}


@dataclass(frozen=True)
class InputSpec:
    """One runtime input of a model.

    Attributes:
        name: The name under which it is fed.
        dtype: The numpy type of its elements.
        shape: Its dimensions, or None where not even the rank is known. A dimension is a size,
            a symbol that the model gives it, or None where it is dynamic and has no symbol
            (-1 and "" are read as None).
        optional: Whether samples may lack it, because it is a state that is fed back.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Dim, ...] | None
    optional: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        if self.shape is not None:
            object.__setattr__(self, "shape", tuple(map(_dimension, self.shape)))

    @property
    def fixed_batch(self) -> int | None:
        """The leading dimension where it is a positive size, else None."""
        leading = self.shape[0] if self.shape else None
        return leading if isinstance(leading, int) and leading > 0 else None


def _dimension(dim: Dim) -> Dim:
    """Bring the ways in which models say "dynamic" down to one."""
    if isinstance(dim, str):
        return dim or None
    return None if dim is None or dim < 0 else int(dim)


def show_shape(shape: Sequence[Dim] | None) -> str:
    """Write a shape for people, with ``?`` for a dynamic dimension that has no symbol."""
    if shape is None:
        return "of any rank"
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]"


def input_specs(
    session: onnxruntime.InferenceSession, model: onnx.ModelProto | None = None
) -> tuple[InputSpec, ...]:
    """Read from a session what it must be fed.

    Args:
        session: The session; initializers that may be overridden are no inputs that must be fed.
        model: The model that the session runs. A session shows an input of unknown rank as a
            scalar; the model tells the two apart.

    Returns:
        One specification per input, in the order of the model.

    Raises:
        SippError: If an input is no tensor of numbers or bools and hence cannot be fed.
    """
    unranked = set() if model is None else _unranked(model.graph.input)
    specs = []
    for node in session.get_inputs():
        if node.type not in _DTYPES:
            raise SippError(
                f"input {node.name!r} of the model is {node.type} and cannot be fed: only tensors "
                "of floats, integers and bools can. Cut the part that takes it off the model, "
                "e.g. with onnx.utils.extract_model, and prune the rest"
            )
        shape = None if node.name in unranked else tuple(node.shape)
        specs.append(InputSpec(node.name, _DTYPES[node.type], shape))
    return tuple(specs)


def output_specs(
    session: onnxruntime.InferenceSession, model: onnx.ModelProto
) -> tuple[InputSpec, ...]:
    """Read what a model gives, in the terms of what it takes; what is no tensor is left out."""
    unranked = _unranked(model.graph.output)
    return tuple(
        InputSpec(
            node.name, _DTYPES[node.type], None if node.name in unranked else tuple(node.shape)
        )
        for node in session.get_outputs()
        if node.type in _DTYPES
    )


def _unranked(values: Iterable[onnx.ValueInfoProto]) -> set[str]:
    return {value.name for value in values if not value.type.tensor_type.HasField("shape")}


def fix_shapes(
    specs: Sequence[InputSpec], input_shapes: Mapping[str, Sequence[int]] | None
) -> tuple[InputSpec, ...]:
    """Give inputs the shapes that the user named.

    Args:
        specs: The inputs of the model.
        input_shapes: Full shapes, batch included, by input name; inputs may be left out.

    Returns:
        The same inputs in the same order, those that were named with a static shape.

    Raises:
        UsageError: If a name is no input, or a shape does not fit what the model declares.
    """
    given = dict(input_shapes or {})
    known = [spec.name for spec in specs]
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise UsageError(
                f"a shape is given for {name!r}, but the model has no such input; its inputs are "
                + ", ".join(map(repr, known))
                + (f". Did you mean {close[0]!r}?" if close else "")
            )
    return tuple(_fixed(spec, given[spec.name]) if spec.name in given else spec for spec in specs)


def _fixed(spec: InputSpec, given: Sequence[int]) -> InputSpec:
    shape = tuple(int(size) for size in given)
    if any(size < 1 for size in shape):
        raise UsageError(
            f"the shape given for input {spec.name!r} is {show_shape(shape)}; "
            "every dimension must be at least 1"
        )
    if not fits(shape, spec.shape):
        raise UsageError(
            f"the shape given for input {spec.name!r} is {show_shape(shape)}, "
            f"but the model declares {show_shape(spec.shape)}"
        )
    return replace(spec, shape=shape)


def fits(shape: Sequence[int], dims: Sequence[Dim] | None) -> bool:
    """Whether an array of this shape may stand where these dimensions are declared."""
    if dims is None:
        return True
    return len(shape) == len(dims) and all(
        size == dim for size, dim in zip(shape, dims, strict=True) if isinstance(dim, int)
    )
