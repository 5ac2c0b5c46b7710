"""What a file claims is checked before anything takes it at its word."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_models import make_model, mlp

from onnx_sipp.errors import SippError
from onnx_sipp.graph.model import Model


def with_dims(dims):
    model = mlp()
    model.graph.initializer[0].dims[:] = dims
    return model


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ([-4, -8], "negative dims"),
        ([1 << 62, 1 << 62], "impossible dims"),
        ([1 << 62, 0, 4], "impossible dims"),  # numpy would count no element
        ([1] * 65, "has 65 dims"),
        ([4, 1 << 31], "fewer elements than its dims"),
    ],
)
@pytest.mark.parametrize("source", [lambda model: model, onnx.ModelProto.SerializeToString])
def test_dims(dims, message, source):
    with pytest.raises(SippError, match=message):
        Model.load(source(with_dims(dims)))


def test_dims_of_sparse_tensors():
    model = mlp()
    sparse = model.graph.sparse_initializer.add(dims=[1 << 40, 1 << 40])
    sparse.values.CopyFrom(helper.make_tensor("s", TensorProto.FLOAT, [1], [1]))
    sparse.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [1], [0]))
    with pytest.raises(SippError, match="'s' has impossible dims"):
        Model.load(model)


def function(name, *called):
    names = ["a", *(f"t{i}" for i in range(len(called) - 1)), "b"]
    nodes = [
        helper.make_node(one, [names[i]], [names[i + 1]], domain="" if one == "Relu" else "own")
        for i, one in enumerate(called)
    ]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, ["a"], ["b"], nodes, imports)


def calling(*functions):
    call = helper.make_node(functions[0].name, ["x"], ["y"], domain="own")
    return make_model([call], {"w": np.ones(1)}, functions=functions, domains=["own"])


def chain(levels, width):
    inner = [function(f"F{i}", *[f"F{i + 1}"] * width) for i in range(levels)]
    return calling(*inner, function(f"F{levels}", "Relu"))


def test_calls_that_unfold_too_far():
    Model.load(chain(10, 2))
    with pytest.raises(SippError, match=r"unfold to [\d,]+ nodes"):
        Model.load(chain(60, 2))


def test_calls_that_are_nested_too_deep():
    Model.load(chain(60, 1))
    with pytest.raises(SippError, match="call each other 3001 deep"):
        Model.load(chain(3000, 1))


def test_calls_without_end():
    with pytest.raises(SippError, match="'F' calls itself"):
        Model.load(calling(function("F", "G"), function("G", "Relu", "F")))
    # Two paths to one function are none.
    Model.load(calling(function("F", "G", "H"), function("G", "H"), function("H", "Relu")))


def test_names_that_are_no_text():
    content = mlp().SerializeToString()
    for name in (b"first", b"w1", b"x"):
        bad = b"\xff\xfe\xfd\xfc\xfb"[: len(name)]
        broken = content.replace(bytes([len(name)]) + name, bytes([len(name)]) + bad)
        assert broken != content
        with pytest.raises(SippError, match="no UTF-8"):
            Model.load(broken)
