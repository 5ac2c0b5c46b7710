"""What is measured in blocks is what is measured of the whole."""

import numpy as np
import pytest
from small_models import make_model, weights

from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.observe import Observation
from onnx_sipp.calibration.samples import open_samples
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.measures import measure_errors, measure_statistics
from onnx_sipp.memory import Plan
from onnx_sipp.progress import Silent
from onnx_sipp.store import TensorStore
from onnx_sipp.weight_groups import group_weights

DATA = np.random.default_rng(0).standard_normal((30, 4), np.float32)
NODES = [
    ("Gemm", "x w b", "h", {"name": "first"}),
    ("Relu", "h", "r"),
    ("Gemm", "r u", "y", {"name": "second", "transB": 1}),
]


@pytest.fixture
def setting():
    proto = make_model(NODES, {"w": weights(4, 9), "b": weights(9), "u": weights(7, 9, seed=1)})
    model = lower(Model(proto))
    samples = open_samples(
        model.plan.original, DATA, num_samples=None, seed=0, input_shapes={}, providers=None
    )

    def at(block, limit):
        execution = Execution(samples.inputs, TensorStore(0), memory=Plan(block, limit))
        found = group_weights(model, find_layers(model).layers, block)
        return found, Observation(execution, model, samples.calibration, 2, Silent())

    return model, at


@pytest.mark.parametrize("method", ["sipp-det", "wanda"])
@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_statistics(setting, method, limit):
    _, at = setting
    whole, parted = (
        measure_statistics(found, method, how, TensorStore(kept))
        for (found, how), kept in ((at(1 << 20, 1 << 20), 1 << 20), (at(20, limit), 0))
    )
    for one, other in zip(whole, parted, strict=True):
        assert len(one.weight.blocks) == 1 < len(other.weight.blocks)
        assert one.patches == other.patches == 1
        expected, found = one.whole(), other.whole()
        for name in ("weight", "sensitivity_max", "sensitivity_mean", "second_moment"):
            values = getattr(expected, name)
            if values is None:
                assert getattr(found, name) is None
                continue
            np.testing.assert_allclose(getattr(found, name), values, rtol=1e-5)
            for number, block in enumerate(other.weight.blocks):
                part = getattr(other.block(number), name)
                rows = block.rows if values.shape[1] > 1 else slice(None)
                np.testing.assert_allclose(part, values[:, rows], rtol=1e-5)


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_errors(setting, limit):
    model, at = setting
    changed = model.copy()
    for weight in at(1 << 20, 0)[0]:
        changed.replace(weight.name, np.round(model.read(weight.name)))
    found = []
    for weights_of, how in (at(1 << 20, 1 << 20), at(20, limit)):
        shifts = [np.full(weight.shape[:2], 0.1) for weight in weights_of]
        found.append(measure_errors(weights_of, changed, shifts, how))
    assert found[0].keys() == {"first", "second"}
    for name, error in found[0].items():
        assert error > 0.01
        assert found[1][name] == pytest.approx(error, rel=1e-5)
