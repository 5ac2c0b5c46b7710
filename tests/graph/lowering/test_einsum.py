"""Einsum with a constant operand is a matrix product, or is refused with the reason."""

import numpy as np
import pytest
from lowered_models import LoweredModel
from onnx import helper
from small_models import make_model, weights

from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model

SIZES = dict(zip("abcdefgh", (2, 3, 4, 5, 2, 3, 2, 2), strict=True))


def shape_of(term, ellipsis=(2, 3)):
    before, dots, after = term.partition("...")
    sizes = [SIZES[axis] for axis in before.strip()]
    return (*sizes, *(ellipsis if dots else ()), *(SIZES[axis] for axis in after.strip()))


def model_of(equation, side=1, ellipsis=(2, 3)):
    terms = equation.split("->")[0].split(",")
    names = ["x", "w"] if side == 1 else ["w", "x"]
    weight = weights(*shape_of(terms[side], ellipsis))
    node = helper.make_node("Einsum", names, ["y"], name="n", equation=equation)
    x = weights(*shape_of(terms[1 - side], ellipsis), seed=1)
    return make_model([node], {"w": weight}, inputs={"x": x.shape}), {"x": x}


# Equation, and the weight matrix that it is: groups, neurons, fan-in.
PRODUCTS = {
    "ab,bc->ac": (1, 4, 3),
    "ab,bc": (1, 4, 3),
    "b,bc->c": (1, 4, 3),
    "abc,cd->abd": (1, 5, 4),
    "abc,dc->abd": (1, 5, 4),
    "abc,cd->adb": (1, 5, 4),
    "abc,cde->abde": (1, 10, 4),
    "abc,bcd->ad": (1, 5, 12),
    "abcd,cde->abe": (1, 2, 20),
    "abcd,dce->bae": (1, 2, 20),
    "abc,cd->ad": (1, 5, 4),
    "ab,b->a": (1, 1, 3),
    "abc,bcd->abd": (3, 5, 4),
    "abc,abd->acd": None,
    "abc,acd->abd": (2, 5, 4),
    "abcd,bde->abce": (3, 2, 5),
    "abcd,acde->abce": (8, 2, 5),
    "abc,abcd->abd": (6, 5, 4),
    "...b,bc->...c": (1, 4, 3),
    "b...,bc->...c": (1, 4, 3),
    "...b,bc->c...": (1, 4, 3),
    "...ab,abc->...c": (1, 4, 6),
    "...ab,abc->...ac": (2, 4, 3),
    "...b,bcd": (1, 20, 3),
    "...b, bc -> ...c": (1, 4, 3),
}


@pytest.mark.parametrize(
    ("equation", "matrix"), [(e, m) for e, m in PRODUCTS.items() if m], ids=str
)
def test_products(equation, matrix):
    found = LoweredModel(*model_of(equation))
    layer = found.layers["n"]
    assert (layer.op_type, layer.kind, layer.view.matrix) == ("Einsum", "MatMul", matrix)


@pytest.mark.parametrize("equation", ["cd,abc->abd", "bcd,abcd->abc", "bc,...b->...c"])
def test_the_constant_on_the_left(equation):
    assert LoweredModel(*model_of(equation, side=0)).layers


def test_an_ellipsis_of_no_axis():
    assert LoweredModel(*model_of("...ab,...bc->...ac", ellipsis=())).layers


def test_a_plain_product_keeps_the_place_of_its_bias():
    proto, feed = model_of("abc,cd->abd")
    proto.graph.node[0].output[0] = "h"
    proto.graph.node.append(helper.make_node("Add", ["h", "w2"], ["y"]))
    proto.graph.initializer.extend(make_model([], {"w2": weights(5)}).graph.initializer)
    found = LoweredModel(proto, feed)
    (reader,) = found.readers(found.layers["n"].output)
    assert reader.op_type == "Add"


REFUSED = {
    "ab,b->ab": "elementwise",
    "ab,c->abc": "elementwise",
    "ab,bc->ab": "adds up the elements",
    "ab,bb->a": "diagonal",
    "aa,ab->b": "diagonal",
    "...b,...bc->...c": "axes without a name",
}


@pytest.mark.parametrize(("equation", "reason"), REFUSED.items(), ids=str)
def test_refusals(equation, reason):
    proto, _ = model_of(equation)
    found = find_layers(lower(Model.load(proto)))
    (skip,) = found.skipped
    assert reason in skip.reason
    assert skip.parameters == np.prod(proto.graph.initializer[0].dims)


def test_three_operands():
    node = helper.make_node("Einsum", ["x", "w", "x"], ["y"], name="n", equation="ab,bc,cd->ad")
    proto = make_model([node], {"w": weights(3, 4)}, inputs={"x": [4, 3]})
    (skip,) = find_layers(lower(Model.load(proto))).skipped
    assert skip.reason == "it multiplies 3 operands, not two"


def test_no_constant():
    node = helper.make_node("Einsum", ["x", "x"], ["y"], equation="ab,cb->ac")
    found = find_layers(lower(Model.load(make_model([node], {}))))
    assert (found.layers, found.skipped) == ((), ())
