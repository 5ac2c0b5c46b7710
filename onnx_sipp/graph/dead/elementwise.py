"""Rules for operators that work element by element, with broadcasting."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import NodeProto

from onnx_sipp.graph.dead.fields import Field, Mask, Step, merged, project
from onnx_sipp.graph.dead.scope import Scope
from onnx_sipp.graph.node import attributes

__all__ = ["ELEMENTWISE", "dropout", "elementwise", "normalization", "product"]

ELEMENTWISE = (
    "Abs", "Add", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Div", "Elu", "Erf", "Exp",
    "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Mean",
    "Min", "Mish", "Neg", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tan",
    "Tanh", "ThresholdedRelu",
)  # fmt: skip

Operands = Mapping[str, Field]


def elementwise(node: NodeProto, scope: Scope) -> Step | None:
    """An element of the result reads the elements at its place, and no others."""
    operands = _operands(node, scope)
    if operands is None:
        return None
    return _step(node, scope, operands, _computed(node, scope, operands))


def product(node: NodeProto, scope: Scope) -> Step | None:
    """Like `elementwise`; a factor that is always zero makes the others unread."""
    operands = _operands(node, scope)
    if operands is None:
        return None
    result = _computed(node, scope, operands)
    zeros = {name: np.broadcast_to(v == 0, result.shape) for name, v in operands.items()}
    result[np.logical_or.reduce(list(zeros.values()))] = 0
    idle = {name: zeros[other] for name in zeros for other in zeros if other != name}
    return _step(node, scope, operands, result, idle)


def normalization(node: NodeProto, scope: Scope) -> Step | None:
    """BatchNormalization with stored statistics: a factor and a shift per channel."""
    found = attributes(node)
    trains = found.get("training_mode", 0) or not found.get("spatial", 1)
    if trains or scope.opset < 7 or any(node.output[1:]):
        return None
    x, *parameters = (scope.value(name) for name in node.input)
    known = [p for p in parameters if p is not None and not np.isnan(p).any()]
    if x is None or x.ndim < 2 or len(known) != 4:
        return None
    scale, shift, mean, variance = known
    factor = scale / np.sqrt(variance + float(found.get("epsilon", 1e-5)))
    channels = (1, -1, *(1,) * (x.ndim - 2))
    factor, shift = (v.reshape(channels) for v in (factor, shift - mean * factor))
    result = np.where(factor == 0, shift, x * factor + shift)
    idle = {node.input[0]: np.broadcast_to(factor == 0, result.shape)}
    return _step(node, scope, {node.input[0]: x}, result, idle)


def dropout(node: NodeProto, scope: Scope) -> Step | None:
    """Dropout outside training is the identity."""
    trains = scope.opset < 7 and not attributes(node).get("is_test", 0)
    if len(node.input) > 2 and node.input[2]:
        modes = [scope.known(node.input[2], trial) for trial in scope.sizes]
        trains = any(mode is None or bool(mode.any()) for mode in modes)
    x = scope.value(node.input[0])
    return None if trains or x is None else _step(node, scope, {node.input[0]: x}, x.copy())


def _operands(node: NodeProto, scope: Scope) -> dict[str, Field] | None:
    """Facts by name of the operand; None if a rank is unknown, or broadcasting is of the old kind.

    Before opset 7, operands were aligned by an attribute.
    """
    operands = {name: scope.value(name) for name in node.input if name}
    if not operands or (scope.opset < 7 and len(operands) > 1):
        return None
    found = {name: values for name, values in operands.items() if values is not None}
    return found if len(found) == len(operands) else None


def _computed(node: NodeProto, scope: Scope, operands: Operands) -> Field:
    """The result where all operands are known, NaN elsewhere and where it is not finite."""
    shape = np.broadcast_shapes(*(values.shape for values in operands.values()))
    full = {name: np.broadcast_to(values, shape) for name, values in operands.items()}
    known = ~np.isnan(np.add.reduce(list(full.values())))
    result = np.full(shape, np.nan)
    types = [scope.dtype(name) if name else None for name in node.input]
    if not known.any() or any(n and t is None for n, t in zip(node.input, types, strict=True)):
        return result
    # Bounds of Clip are scalars by definition; later operands of others do as well with that.
    given = [
        None if not name
        else operands[name].reshape(()).astype(dtype) if place and operands[name].size == 1
        else full[name][known].astype(dtype)
        for place, (name, dtype) in enumerate(zip(node.input, types, strict=True))
    ]  # fmt: skip
    made = scope.evaluate(node, given)
    if made is not None and made[0].dtype.kind in "fViub":
        values = made[0].astype(np.float64)
        result[known] = np.where(np.isfinite(values), values, np.nan)
    return result


def _step(
    node: NodeProto,
    scope: Scope,
    operands: Operands,
    result: Field,
    idle: Mapping[str, Mask] | None = None,
) -> Step:
    """Merge what needs no telling apart.

    Args:
        node: whose step it is.
        scope: of the graph.
        operands: facts by name.
        result: over the shape of all operands.
        idle: by operand, where the result does not depend on it.
    """
    varying = {name: v for name, v in operands.items() if name not in scope.constants}
    finest = np.broadcast_shapes(*(values.shape for values in varying.values()))
    extra = result.ndim - len(finest)
    keep = tuple(axis + extra for axis, size in enumerate(finest) if size > 1)
    output = node.output[0]

    def reads(live: Mapping[str, Mask]) -> dict[str, Mask]:
        found = {}
        for name, values in varying.items():
            used = live[output]
            if idle is not None and name in idle:
                used = used & ~idle[name]
            found[name] = project(used, values.shape)
        return found

    return Step({output: merged(result, keep)}, reads)
