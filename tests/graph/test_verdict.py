"""What the checker says of the input, it must say of the output."""

from math import prod

import numpy as np
import onnx
import pytest
from small_models import make_model, mlp, save_external, weights

from onnx_sipp.errors import SippError
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.verdict import ensure_no_worse_verdict, ensure_same_verdict


def changed(model):
    result = model.copy()
    result.replace("w1", np.zeros((4, 8), np.float32))
    return result


@pytest.fixture(params=[False, True], ids=["small", "large"], autouse=True)
def size(request, monkeypatch):
    """Whether constants count as large, and are not shown to the checker."""
    if request.param:
        monkeypatch.setattr("onnx_sipp.graph.verdict._LARGE", 1)


def test_large_constants_are_not_copied(monkeypatch):
    shown = []
    monkeypatch.setattr("onnx_sipp.graph.verdict._LARGE", 20)
    monkeypatch.setattr("onnx.checker.check_model", shown.append)
    model = Model.load(mlp())
    ensure_same_verdict(model, model)
    for proto in shown:
        for before, after in zip(
            model.proto.graph.initializer, proto.graph.initializer, strict=True
        ):
            assert after.name == before.name
            assert (after.ByteSize() < before.ByteSize()) == (prod(before.dims) >= 20)
    assert len(shown) == 2


def test_a_good_model_stays_good():
    model = Model.load(mlp())
    onnx.checker.check_model(model.proto)
    ensure_same_verdict(model, changed(model))


def test_external_data(tmp_path, monkeypatch):
    """The checker would look for the data in the current folder, whatever is there."""
    model = Model.load(save_external(mlp(), tmp_path / "m.onnx"))
    monkeypatch.chdir("/")
    ensure_same_verdict(model, changed(model))


def test_a_model_that_fails_the_checker_may_be_pruned():
    proto = mlp()
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(proto)
    model = Model.load(proto)
    ensure_same_verdict(model, changed(model))


@pytest.mark.parametrize("external", [False, True])
def test_damage_is_told(tmp_path, external):
    model = Model.load(save_external(mlp(), tmp_path / "m.onnx") if external else mlp())
    damaged = changed(model)
    damaged.proto.graph.node[0].op_type = "Gemmm"
    with pytest.raises(SippError, match="damaged, nothing was written.*Gemmm") as caught:
        ensure_same_verdict(model, damaged)
    assert "\n" not in str(caught.value)


def test_an_unknown_operator_is_no_obstacle():
    proto = make_model([("NoSuchOperator", "x w", "y")], {"w": weights(4, 6)})
    model = Model.load(proto)
    ensure_same_verdict(model, model.copy())


def test_a_rebuilt_model_may_only_be_better():
    model = Model.load(mlp())
    damaged = model.copy()
    damaged.proto.graph.node[0].op_type = "Nonsense"
    ensure_no_worse_verdict(model, model.copy())
    ensure_no_worse_verdict(damaged, model)
    with pytest.raises(SippError, match="quantised model is damaged"):
        ensure_no_worse_verdict(model, damaged)
