"""Routes followed back to the stored elements."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import make_model, weights

from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.node import NotPrunable

CONSTANTS = {
    "w": weights(2, 3),
    "v": weights(2, 2),
    "i": np.array([1, 0]),
    "one": np.array([1]),
    "s": np.float32(0.5),
    "q": np.array([[1, 2, 3], [4, 5, 6]], np.int8),
    "half": np.float16(0.5),
}


def tracer(*nodes):
    """Of a model that reads the constant k; the elements of w are 1 to 6, those of v 7 to 10."""
    model = make_model([*nodes, ("Add", "x k", "y")], CONSTANTS)
    return lower(Model.load(model)).plan.tracer


def test_elements_in_their_places():
    nodes = [("Transpose", "w", "t"), ("Gather", "t i", "g"), ("Transpose", "v", "u"),
             ("Concat", "g u", "k", {"axis": 0})]  # fmt: skip
    found = tracer(*nodes).trace("k")
    assert found.ids.tolist() == [[2, 5], [1, 4], [7, 9], [8, 10]]
    assert (found.dtype, found.grid, found.levels) == (np.float32, None, False)


def test_the_grid_moves_along():
    nodes = [
        ("Transpose", "q", "t"),
        ("DequantizeLinear", "t s3", "d", {"axis": 0}),
        ("Transpose", "d", "k"),
    ]
    model = make_model(
        [*nodes, ("Add", "x k", "y")], {**CONSTANTS, "s3": np.array([1, 2, 4], np.float32)}
    )
    found = lower(Model.load(model)).plan.tracer.trace("k")
    assert found.grid.scale.tolist() == [[1, 2, 4]] * 2
    assert found.grid.stored
    assert found.dtype == np.float32


@pytest.mark.parametrize("to", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_cast(to):
    found = tracer(("Cast", "w", "k", {"to": to})).trace("k")
    assert found.dtype == helper.tensor_dtype_to_np_dtype(to)
    assert found.ids.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_an_output_type_of_its_own():
    node = helper.make_node("DequantizeLinear", ["q", "half"], ["k"], output_dtype=1)
    assert tracer(node).trace("k").dtype == np.float32


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (("Mul", "w s", "k"), "Mul calculates"),
        (("Cast", "w", "k", {"to": TensorProto.INT32}), "Cast from float32 to int32"),
        (("Concat", "w q", "k", {"axis": 0}), "stored in different ways"),
        (("Reshape", "w i", "k"), "Reshape cannot be evaluated"),
    ],
)
def test_reasons(node, reason):
    with pytest.raises(NotPrunable, match=reason):
        tracer(node).trace("k")


def test_shapes_depend_on_no_elements():
    nodes = [("Shape", "w", "n"), ("Gather", "n one", "m"), ("Mul", "m m", "k")]
    found = tracer(*nodes)
    assert found.sources("k") == {"one"}  # of w, only the shape
    assert found.elements("k").tolist() == found.elements("one").tolist()


def test_elements_of_what_is_calculated():
    """Only those that the calculation sees."""
    nodes = [("Gather", "w one", "g"), ("Mul", "g s", "k")]
    found = tracer(*nodes)
    assert sorted(found.elements("k")) == [4, 5, 6, *found.elements("s").ravel()]
    assert found.sources("k") == {"w", "one", "s"}


def test_long_chains():
    """No recursion, and no work that grows with the square of the length."""
    nodes = [("Identity", "w", "k0"), *(("Identity", f"k{n}", f"k{n + 1}") for n in range(1500))]
    nodes.append(("Identity", "k1500", "k"))
    assert tracer(*nodes).trace("k").ids.tolist() == [[1, 2, 3], [4, 5, 6]]
