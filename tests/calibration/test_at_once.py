"""How many batches go through a model at the same time."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import make_model, mlp

from onnx_sipp.calibration.at_once import batch_threads
from onnx_sipp.graph.model import Model


def drawing(op_type, *inputs, **attributes):
    """A model that draws numbers, in a branch of it."""
    node = helper.make_node(op_type, ["x", *inputs], ["drawn"], **attributes)
    branch = helper.make_graph(
        [node], "then", [], [helper.make_tensor_value_info("drawn", TensorProto.FLOAT, None)]
    )
    nodes = [("If", "c", "y", {"then_branch": branch, "else_branch": branch})]
    ratio, true = np.array(0.5, np.float32), np.array(True)
    return make_model(nodes, {"c": true, "ratio": ratio, "trains": true})


@pytest.mark.parametrize(
    ("batches", "threads", "providers", "expected"),
    [
        (4, 2, None, 2),
        (4, 2, ["CPUExecutionProvider"], 2),
        (3, 2, None, None),  # threads of onnxruntime share what there is more evenly
        (2, 1, None, 1),  # of which a borrowed one makes two
        (1, 1, None, None),
        (4, None, None, None),
        (8, 16, None, 4),  # more would take much memory
        (7, 16, None, None),
        (4, 2, ["CUDAExecutionProvider", "CPUExecutionProvider"], None),
    ],
)
def test_how_many_batches_run_at_once(batches, threads, providers, expected):
    assert batch_threads(Model(mlp()), batches, threads, providers) == expected


@pytest.mark.parametrize(
    "proto",
    [
        drawing("RandomNormalLike"),
        drawing("Bernoulli"),
        drawing("Dropout", "ratio", "trains"),
    ],
    ids=lambda proto: proto.graph.node[0].attribute[0].g.node[0].op_type,
)
def test_what_is_drawn_depends_on_no_order(proto):
    assert batch_threads(Model(proto), 9, 2, None) is None
    assert batch_threads(Model(drawing("Dropout", "ratio")), 9, 2, None) == 2


def test_other_operators_and_large_models_run_alone(monkeypatch, tmp_path):
    model = Model(mlp())
    model.libraries = [tmp_path / "operators.so"]
    assert batch_threads(model, 9, 2, None) is None
    monkeypatch.setattr("onnx_sipp.calibration.runner.LARGE_BYTES", 0)
    assert batch_threads(Model(mlp()), 9, 2, None) is None
