"""Seeded random inputs, for when there is no data."""

from __future__ import annotations

__all__ = ["SyntheticSource"]

import math
from typing import TYPE_CHECKING

import numpy as np

from onnx_sipp.calibration.specs import fix_shapes
from onnx_sipp.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from onnx_sipp.calibration.specs import Array, Dim, Feed, InputSpec

_DEFAULT_COUNT = 32
_DEFAULT_SIZE = 8
_MOST_BYTES = 1 << 30  # of one input of one sample


class SyntheticSource:
    """Random inputs that fit the declared types and shapes.

    Each feed depends on nothing but the seed and its own number.

    Attributes:
        description: What the data is, for people.
        synthetic: Always True.
        notes: What the user must be told.
        restarts: None; the feeds are one sequence.
    """

    synthetic = True
    restarts: tuple[int, ...] = ()

    def __init__(
        self,
        specs: Sequence[InputSpec],
        num_samples: int | None = None,
        seed: int = 0,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        """Choose the shapes.

        Args:
            specs: The inputs of the model; no values are made for optional ones.
            num_samples: The number of feeds, 32 if None.
            seed: A number from 0.
            input_shapes: Full shapes, batch included, by input name; inputs may be left out.

        Raises:
            UsageError: If an input has no shape, a shape does not fit the model or is huge, or
                the seed is negative.
        """
        if seed < 0:
            raise UsageError(f"the seed must be 0 or more, but it is {seed}")
        fixed = fix_shapes(specs, input_shapes)
        self._specs, self._seed = [spec for spec in specs if not spec.optional], seed
        self._shapes, guessed = _choose_shapes(
            self._specs, [spec for spec in fixed if not spec.optional]
        )
        _refuse_huge(self._specs, self._shapes)
        self._count = num_samples or _DEFAULT_COUNT
        plural = "s" if self._count > 1 else ""
        self.description = f"synthetic: {self._count} seeded random sample{plural}"
        note = (
            f"sizes that the model leaves open were set to {_DEFAULT_SIZE} ({guessed}); "
            "give the shapes of the inputs to set them"
        )
        self.notes = (note,) if guessed else ()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Feed]:
        for index in range(self._count):
            rng = np.random.default_rng([self._seed, index])
            yield {
                spec.name: _draw(rng, spec, shape)
                for spec, shape in zip(self._specs, self._shapes, strict=True)
            }


def _refuse_huge(specs: Sequence[InputSpec], shapes: Sequence[tuple[int, ...]]) -> None:
    for spec, shape in zip(specs, shapes, strict=True):
        size = math.prod(shape) * spec.dtype.itemsize
        if size > _MOST_BYTES:
            raise UsageError(
                f"input {spec.name!r} has the shape {list(shape)}, and made-up values for it would "
                f"take {size >> 20:,} MiB, more than {_MOST_BYTES >> 20:,}: give real data, or a "
                "smaller shape if the model leaves it open"
            )


def _choose_shapes(
    declared: Sequence[InputSpec], specs: Sequence[InputSpec]
) -> tuple[list[tuple[int, ...]], str]:
    """Give every dimension a size, and name those for which it is a guess.

    Args:
        declared: The inputs as the model has them.
        specs: The same with the shapes that the user gave.

    Returns:
        The shapes, and the dimensions that were guessed.
    """
    sizes: dict[str, int] = {}
    for before, spec in zip(declared, specs, strict=True):
        for dim, size in zip(before.shape or (), spec.shape or (), strict=False):
            if isinstance(dim, str) and isinstance(size, int):
                sizes.setdefault(dim, size)
    for spec in specs:
        if spec.shape is None:
            raise UsageError(
                f"input {spec.name!r} declares no shape, so no random values can be made for it: "
                "give its shape or real data"
            )
        if spec.shape and isinstance(spec.shape[0], str):
            sizes.setdefault(spec.shape[0], 1)  # the batch, wherever else the symbol stands
    guessed: dict[str, None] = {}
    shapes = [
        tuple(
            _size(dim, f"{spec.name}[{axis}]", 1 if axis == 0 else _DEFAULT_SIZE, sizes, guessed)
            for axis, dim in enumerate(spec.shape or ())
        )
        for spec in specs
    ]
    return shapes, ", ".join(guessed)


def _size(
    dim: Dim, place: str, default: int, sizes: dict[str, int], guessed: dict[str, None]
) -> int:
    if isinstance(dim, int):
        return dim
    if dim is not None and dim in sizes:
        return sizes[dim]
    if default > 1:
        guessed[dim or place] = None
    if dim is not None:
        sizes[dim] = default
    return default


def _draw(rng: np.random.Generator, spec: InputSpec, shape: tuple[int, ...]) -> Array:
    # Small numbers are the only integers that are valid indices, masks and token types alike.
    if spec.dtype.kind in "iub":
        return np.asarray(rng.integers(0, 2, shape), dtype=spec.dtype)
    return np.asarray(rng.standard_normal(shape, np.float32), dtype=spec.dtype)
