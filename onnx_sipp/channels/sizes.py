"""Shapes of the tensors of a model for one sample, and elements of small ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.specs import Feed
from onnx_sipp.graph.model import Model

__all__ = ["Sizes"]

# Constants of up to so many elements may tell a shape or which channels to pick.
_SMALL = 1 << 16


@dataclass(frozen=True)
class Sizes:
    """What is known of the tensors of the main graph.

    Attributes:
        shapes: of all tensors of numbers, for one sample.
        values: elements of the small integer ones.
    """

    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, NDArray[Any]]

    @classmethod
    def of(cls, model: Model, execution: Execution, feed: Feed) -> Sizes:
        """Run a sample and look.

        Args:
            model: is not changed.
            execution: how it is run.
            feed: the sample.

        Raises:
            SippError: the runtime fails on it.
        """
        names = [name for node in model.proto.graph.node for name in node.output if name]
        found: dict[str, Any] = {**feed, **execution.runner(model, names).run(feed)}
        tensors = {name: v for name, v in found.items() if isinstance(v, np.ndarray)}
        shapes = {name: v.shape for name, v in tensors.items()}
        shapes |= {name: tuple(tensor.dims) for name, tensor in model.stored.items()}
        values = {n: v for n, v in tensors.items() if v.dtype.kind in "iu" and v.size <= _SMALL}
        for name, tensor in model.stored.items():
            if prod(tensor.dims) <= _SMALL and model.read(name).dtype.kind in "iu":
                values[name] = model.read(name)
        return cls(shapes, values)
