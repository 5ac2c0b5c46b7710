"""How well two models agree."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import make_model, mlp, weights

from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.fidelity import measure_fidelity
from onnx_sipp.calibration.runner import Runner
from onnx_sipp.calibration.samples import open_samples
from onnx_sipp.graph.model import Model
from onnx_sipp.progress import Silent
from onnx_sipp.store import TensorStore

DATA = np.random.default_rng(0).standard_normal((40, 4), np.float32)


def fidelity(dense, pruned, data=DATA, batch_size=None):
    models = [Model(dense), Model(pruned)]
    samples = open_samples(
        models[0], data, num_samples=None, seed=0, input_shapes={}, providers=None, hold_out=False
    )
    execution = Execution(samples.inputs, TensorStore(), batch_size=batch_size)
    return measure_fidelity(execution, *models, samples.calibration, Silent())


def changed(model, name, values):
    result = Model(model)
    result = result.copy()
    result.replace(name, values.astype(np.float32))
    return result.proto


@pytest.mark.parametrize("batch_size", [None, 1, 7])
def test_measures_are_those_of_numpy(batch_size):
    noise = np.random.default_rng(1).standard_normal((8, 3), np.float32)
    other = changed(mlp(), "w2", weights(8, 3, seed=1) + noise)
    (found,) = fidelity(mlp(), other, batch_size=batch_size)
    dense, pruned = (
        Runner(Model(model)).run({"x": DATA})["y"].astype(np.float64) for model in (mlp(), other)
    )
    norms = [np.linalg.norm(values, axis=1) for values in (dense, pruned)]
    assert found.name == "y"
    assert found.relative_error == pytest.approx(
        np.linalg.norm(dense - pruned) / np.linalg.norm(dense), rel=1e-6
    )
    assert found.cosine == pytest.approx(np.mean((dense * pruned).sum(axis=1) / np.prod(norms, 0)))
    assert found.top1_agreement == np.mean(dense.argmax(1) == pruned.argmax(1))
    assert found.note == ""


def test_a_model_agrees_with_itself():
    (found,) = fidelity(mlp(), mlp())
    assert found.relative_error == 0
    assert found.cosine == pytest.approx(1)
    assert found.top1_agreement == 1


def test_outputs_that_vanish():
    nothing = changed(mlp(), "w2", np.zeros((8, 3)))
    nothing = changed(nothing, "b2", np.zeros(3))
    (same,) = fidelity(nothing, nothing)
    assert (same.relative_error, same.cosine) == (0, 1)
    (lost,) = fidelity(mlp(), nothing)
    assert (lost.relative_error, lost.cosine) == (1, 0)
    (gained,) = fidelity(nothing, mlp())
    assert gained.relative_error == np.inf
    assert "always gives 0" in gained.note
    assert not lost.note


def test_agreement_only_where_the_output_looks_like_class_scores():
    nodes = [
        ("MatMul", "x w", "scores"),
        ("MatMul", "x v", "number"),
        ("Unsqueeze", "scores axis", "deeper"),
    ]
    constants = {"w": weights(4, 3), "v": weights(4, 1), "axis": np.array([1])}
    model = make_model(nodes, constants, outputs=["scores", "number", "deeper"])
    scores, number, deeper = fidelity(model, changed(model, "w", -weights(4, 3)))
    assert scores.top1_agreement is not None
    assert number.top1_agreement is None
    assert deeper.top1_agreement is None
    assert (scores.relative_error, scores.cosine) == (pytest.approx(2), pytest.approx(-1))


def test_integer_outputs():
    nodes = [
        ("MatMul", "x w", "s"),
        ("ArgMax", "s", "y", {"axis": 1, "keepdims": 0}),
    ]
    model = make_model(nodes, {"w": weights(4, 3)})
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    other = changed(model, "w", weights(4, 3, seed=5))
    expected = np.mean((DATA @ weights(4, 3)).argmax(1) != (DATA @ weights(4, 3, seed=5)).argmax(1))
    (found,) = fidelity(model, other)
    assert found.relative_error == pytest.approx(expected)
    assert (found.cosine, found.top1_agreement) == (None, None)


def test_outputs_that_are_no_tensors():
    model = make_model(
        [("MatMul", "x w", "m"), ("SequenceConstruct", "m m", "y")], {"w": weights(4, 3)}
    )
    value_type = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    model.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(value_type))
    (found,) = fidelity(model, model)
    assert found.relative_error is None
    assert found.note == "not a tensor of numbers"


def test_shapes_that_depend_on_the_weights():
    nodes = [
        ("MatMul", "x w", "m"),
        ("Greater", "m zero", "g"),
        ("NonZero", "g", "n"),
        ("Cast", "n", "y", {"to": TensorProto.FLOAT}),
    ]
    model = make_model(nodes, {"w": weights(4, 30), "zero": np.float32(0)})
    (found,) = fidelity(model, changed(model, "w", -weights(4, 30)))
    assert found.note.startswith("its shape depends on the weights")


def test_a_dense_model_that_is_not_finite():
    nodes = [("MatMul", "x w", "m"), ("Log", "m", "y")]
    model = make_model(nodes, {"w": weights(4, 3)})
    (found,) = fidelity(model, model)
    assert found.relative_error == 0
    assert "the dense model gives infinities or NaN" in found.note


def test_a_pruned_model_that_is_not_finite():
    nodes = [("MatMul", "x w", "m"), ("Exp", "m", "y")]
    model = make_model(nodes, {"w": weights(4, 3)})
    (found,) = fidelity(model, changed(model, "w", 1000 * weights(4, 3)))
    assert found.relative_error == np.inf
    assert "the pruned model gives infinities or NaN" in found.note
    assert np.isfinite(found.cosine)


def test_half_precision():
    model = make_model(
        [
            ("Cast", "m", "y", {"to": TensorProto.FLOAT16}),
        ],
        {},
        {"m": ["n", 4]},
    )
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    (found,) = fidelity(model, model)
    assert found.relative_error == 0
