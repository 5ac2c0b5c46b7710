"""Activation functions that fused and recurrent operators apply, as nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_sipp.graph.lowering.sketch import Sketch
from onnx_sipp.graph.node import NotPrunable

__all__ = ["activate", "parameters_of", "refuse_unknown"]


def _affine(sketch: Sketch, x: str, alpha: float, beta: float) -> str:
    scaled = sketch.add("Mul", x, sketch.number(alpha))
    return sketch.add("Add", scaled, sketch.number(beta))


def _scaled_tanh(sketch: Sketch, x: str, alpha: float, beta: float) -> str:
    inner = sketch.add("Mul", x, sketch.number(beta))
    return sketch.add("Mul", sketch.add("Tanh", inner), sketch.number(alpha))


def _clip(sketch: Sketch, x: str, low: float, high: float) -> str:
    raised = sketch.add("Max", x, sketch.number(low))
    return sketch.add("Min", raised, sketch.number(high))


def _plain(op_type: str, *names: str) -> Callable[..., str]:
    def write(sketch: Sketch, x: str, *values: float) -> str:
        given: dict[str, Any] = dict(zip(names, values, strict=True))
        return sketch.add(op_type, x, **given)

    return write


@dataclass(frozen=True)
class _Function:
    """A function, and the defaults of its parameters, in their order."""

    write: Callable[..., str]
    defaults: tuple[float, ...] = ()


_FUNCTIONS: Mapping[str, _Function] = {
    "affine": _Function(_affine, (1.0, 0.0)),
    "clip": _Function(_clip, (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max))),
    "elu": _Function(_plain("Elu", "alpha"), (1.0,)),
    "hardsigmoid": _Function(_plain("HardSigmoid", "alpha", "beta"), (0.2, 0.5)),
    "leakyrelu": _Function(_plain("LeakyRelu", "alpha"), (0.01,)),
    "relu": _Function(_plain("Relu")),
    "scaledtanh": _Function(_scaled_tanh, (1.0, 1.0)),
    "sigmoid": _Function(_plain("Sigmoid")),
    "softplus": _Function(_plain("Softplus")),
    "softsign": _Function(_plain("Softsign")),
    "tanh": _Function(_plain("Tanh")),
    "thresholdedrelu": _Function(_plain("ThresholdedRelu", "alpha"), (1.0,)),
}


def refuse_unknown(name: str, parameters: int) -> None:
    """Raise if there is no function of a name.

    Args:
        name: of the function; ``""`` for none.
        parameters: elements of the weight that cannot be pruned then.

    Raises:
        NotPrunable: it is not known.
    """
    if name and name.lower() not in _FUNCTIONS:
        raise NotPrunable(f"its activation {name} is not known", parameters)


def activate(sketch: Sketch, name: str, x: str, parameters: Sequence[float] = ()) -> str:
    """Apply a function by the name that operators know it by, in any case.

    Args:
        sketch: takes the nodes.
        name: of the function; ``""`` for none.
        x: what it is applied to.
        parameters: its first parameters; the others have their defaults.
    """
    if not name:
        return x
    function = _FUNCTIONS[name.lower()]
    values = [*parameters, *function.defaults[len(parameters) :]]
    return function.write(sketch, x, *values[: len(function.defaults)])


def parameters_of(name: str) -> int:
    """How many parameters a function has."""
    return len(_FUNCTIONS[name.lower()].defaults)
