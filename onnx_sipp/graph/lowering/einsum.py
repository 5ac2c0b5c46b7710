"""Einsum with a constant operand: a matrix product between transposes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from onnx import NodeProto

from onnx_sipp.graph.lowering.builder import Builder
from onnx_sipp.graph.lowering.sketch import Sketch
from onnx_sipp.graph.node import NotPrunable, attributes

__all__ = ["einsum"]

_ELLIPSIS = "…"  # one character, so that a term is a string of axes


@dataclass(frozen=True)
class Equation:
    """An equation of two operands, seen from the constant one.

    Attributes:
        activation: axes of the operand that varies.
        weight: axes of the constant.
        output: axes of the result.
    """

    activation: str
    weight: str
    output: str

    @property
    def groups(self) -> str:
        """Axes along which there is a matrix each."""
        return "".join(a for a in self.weight if a in self.activation and a in self.output)

    @property
    def inner(self) -> str:
        """Axes that are summed over."""
        return "".join(a for a in self.weight if a in self.activation and a not in self.output)

    @property
    def neurons(self) -> str:
        """Axes that the weight adds to the output."""
        return "".join(a for a in self.weight if a not in self.activation)

    @property
    def rows(self) -> str:
        """Axes that the activation adds to the output, in their order there."""
        return "".join(a for a in self.output if a not in self.weight)


def einsum(node: NodeProto, builder: Builder) -> Sequence[NodeProto] | None:
    """Einsum of an activation and a constant as ``activation @ weight``.

    Raises:
        NotPrunable: there are other than two operands, the product is no matrix product, or the
            weight is not made of stored elements.
    """
    constant = [builder.is_constant(name) for name in node.input]
    if not any(constant):
        return None
    sizes = [builder.value(n).size for n, known in zip(node.input, constant, strict=True) if known]
    if len(node.input) != 2:
        raise NotPrunable(f"it multiplies {len(node.input)} operands, not two", sum(sizes))
    side = constant.index(True)
    weight = builder.value(node.input[side])
    equation = _parsed(attributes(node)["equation"], side, weight.ndim)
    reason = _refusal(equation)
    if reason:
        raise NotPrunable(reason, weight.size)
    sketch = Sketch(builder)
    size = dict(zip(equation.weight, weight.shape, strict=True))
    y = _product(sketch, equation, node.input[1 - side], node.input[side], size)
    final = equation.groups + equation.rows + equation.neurons
    _rearranged(sketch, y, final, equation.output)
    sketch.nodes[-1].output[0] = node.output[0]
    return sketch.nodes


def _parsed(equation: str, side: int, rank: int) -> Equation:
    text = equation.replace(" ", "").replace("...", _ELLIPSIS)
    left, arrow, output = text.partition("->")
    terms = left.split(",")
    if not arrow:
        letters = left.replace(",", "").replace(_ELLIPSIS, "")
        once = sorted(letter for letter in set(letters) if letters.count(letter) == 1)
        output = (_ELLIPSIS if _ELLIPSIS in left else "") + "".join(once)
    weight = terms[side]
    if _ELLIPSIS in weight and len(weight) == rank + 1:  # it stands for no axis
        weight = weight.replace(_ELLIPSIS, "")
    return Equation(terms[1 - side], weight, output)


def _refusal(equation: Equation) -> str:
    """Why an equation is no matrix product, "" if it is one."""
    terms = (equation.activation, equation.weight, equation.output)
    if any(len(set(term)) < len(term) for term in terms):
        return "it takes a diagonal"
    if _ELLIPSIS in equation.weight:
        return "its constant has axes without a name ('...')"
    if any(axis not in equation.output for axis in equation.neurons):
        return "it adds up the elements of its constant"
    if not equation.inner:
        return "an elementwise factor is no weight matrix"
    return ""


def _product(
    sketch: Sketch, equation: Equation, activation: str, weight: str, size: dict[str, int]
) -> str:
    """Write down the product, with axes groups, rows, neurons."""
    groups, rows = equation.groups, equation.rows
    inner, neurons = equation.inner, equation.neurons
    places = np.arange(prod(size.values())).reshape(list(size.values()))
    ordered = places.transpose([equation.weight.index(a) for a in groups + inner + neurons])
    x = _rearranged(sketch, activation, equation.activation, groups + rows + inner)
    one_row_axis = len(rows) == 1 and rows != _ELLIPSIS
    if len(inner) == len(neurons) == 1 and (not groups or one_row_axis):
        return sketch.add("MatMul", x, sketch.builder.weight(weight, ordered))
    fan_in = prod(size[axis] for axis in inner)
    parted = [size[axis] for axis in neurons]
    if not groups and _ELLIPSIS not in rows:
        flat = x if len(inner) == 1 else sketch.reshape(x, [*[0] * len(rows), fan_in])
        matrix = ordered.reshape(fan_in, -1)
        y = sketch.add("MatMul", flat, sketch.builder.weight(weight, matrix))
        return sketch.reshape(y, [*[0] * len(rows), *parted]) if len(neurons) != 1 else y
    stack = [prod(size[axis] for axis in groups)] if groups else []
    matrix = ordered.reshape(*stack, fan_in, -1)
    flat = sketch.reshape(x, [*stack, -1, fan_in])
    y = sketch.add("MatMul", flat, sketch.builder.weight(weight, matrix))
    lead = sketch.slice(sketch.add("Shape", x), 0, 0, -len(inner))
    whole = sketch.add("Concat", lead, sketch.constant(parted), axis=0)
    return sketch.add("Reshape", y, whole)


def _rearranged(sketch: Sketch, name: str, axes: str, wanted: str) -> str:
    """Bring axes into another order; those that are not wanted are summed over."""
    if axes == wanted:
        return name
    equation = f"{axes}->{wanted}".replace(_ELLIPSIS, "...")
    return sketch.add("Einsum", name, equation=equation)
