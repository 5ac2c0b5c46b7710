import numpy as np
import pytest
from small_models import make_model, weights

from onnx_sipp import prune
from onnx_sipp.errors import SippError
from onnx_sipp.fitting import fitted, why_no_sparse_cores
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.pruning.patterns import Blocks, NofM

IMAGE = {"x": ["n", 8, 5, 5]}


def found_in(model, pattern):
    lowered = lower(Model.load(model))
    return lowered, fitted(lowered, find_layers(lowered), pattern)


def convolution(shape, **attributes):
    return make_model(
        [("Conv", "x w", "y", {"name": "conv", **attributes})], {"w": weights(*shape)}, IMAGE
    )


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        (NofM(2, 4), ""),
        (NofM(1, 16), "its 8 input channels are no multiple of 16"),
        (Blocks(4, 1), "its 6 output channels are no multiple of 4"),
        (Blocks(2, 8), ""),
        (Blocks(1, 3), "its 8 input channels are no multiple of 3"),
    ],
)
def test_patterns_fit_what_they_divide(pattern, told):
    model = convolution((6, 8, 3, 3))
    if not told:
        assert [layer.name for layer in found_in(model, pattern)[1].layers] == ["conv"]
        return
    with pytest.raises(SippError, match=told):
        found_in(model, pattern)


def test_groups_are_looked_at_one_by_one():
    assert found_in(convolution((8, 4, 1, 1), group=2), NofM(2, 4))[1].layers
    with pytest.raises(SippError, match="2 input channels of each group"):
        found_in(convolution((8, 2, 1, 1), group=4), NofM(2, 4))


def chain(*nodes, **constants):
    return make_model(list(nodes), constants)


def test_layers_that_do_not_fit_stay_dense_and_are_told():
    model = chain(
        ("MatMul", "x a", "h", {"name": "first"}),
        ("MatMul", "h b", "y", {"name": "second"}),
        a=weights(4, 6),
        b=weights(6, 3, seed=1),
    )
    result = prune(model, np.random.default_rng(0).random((40, 4), np.float32), pattern="2:4")
    assert list(result.masks) == ["first"]
    (skip,) = result.report.skipped
    assert (skip.name, skip.parameters) == ("second", 18)
    assert skip.reason == "2:4: its 6 input channels are no multiple of 4"
    assert result.report.prunable == 24
    assert result.report.layers[0].no_sparse_cores == ""


def test_a_weight_that_is_multiplied_along_both_axes_stays_dense():
    model = chain(
        ("Gemm", "x w", "h", {"name": "one"}),
        ("Gemm", "h w", "g", {"name": "turned", "transB": 1}),
        ("MatMul", "g v", "y", {"name": "other"}),
        w=weights(4, 4),
        v=weights(4, 4, seed=1),
    )
    lowered, findings = found_in(model, NofM(2, 4))
    assert [layer.name for layer in findings.layers] == ["other"]
    assert {skip.name for skip in findings.skipped} == {"one", "turned"}
    assert all("different axes" in skip.reason for skip in findings.skipped)
    # A block with as many rows as columns is the same block seen from either side.
    assert len(found_in(model, Blocks(2, 2))[1].layers) == 3
    assert not why_no_sparse_cores(lowered, findings.layers[0], NofM(2, 4))


def test_a_weight_that_is_multiplied_twice_alike_has_one_pattern():
    model = chain(
        ("MatMul", "x w", "h", {"name": "one"}),
        ("MatMul", "h w", "y", {"name": "two"}),
        w=weights(4, 4),
    )
    assert [layer.name for layer in found_in(model, NofM(2, 4))[1].layers] == ["one", "two"]


@pytest.mark.parametrize(
    ("shape", "attributes", "pattern", "told"),
    [
        ((8, 8, 3, 3), {}, NofM(2, 4), ""),
        ((8, 8, 3, 3), {}, NofM(1, 4), ""),
        ((8, 8, 3, 3), {}, NofM(1, 2), ""),
        ((8, 8, 3, 3), {}, NofM(4, 8), "4:8 is not"),
        ((8, 8, 3, 3), {}, Blocks(4, 1), "4x1 is not"),
        ((8, 4, 3, 3), {"group": 2}, NofM(2, 4), "in groups"),
    ],
)
def test_what_sparse_tensor_cores_take(shape, attributes, pattern, told):
    lowered, findings = found_in(convolution(shape, **attributes), pattern)
    why = why_no_sparse_cores(lowered, findings.layers[0], pattern)
    assert told in why
    assert bool(told) == bool(why)


def test_other_operators_have_no_sparse_kernels():
    model = make_model(
        [("ConvTranspose", "x w", "y", {"name": "up"})], {"w": weights(8, 4, 2, 2)}, IMAGE
    )
    lowered, findings = found_in(model, NofM(2, 4))
    assert "ConvTranspose" in why_no_sparse_cores(lowered, findings.layers[0], NofM(2, 4))


def test_two_channels_of_every_two_are_too_few_for_four():
    lowered, findings = found_in(chain(("MatMul", "x w", "y"), w=weights(6, 4)), NofM(1, 2))
    why = why_no_sparse_cores(lowered, findings.layers[0], NofM(1, 2))
    assert why == "its 6 input channels are no multiple of 4"
