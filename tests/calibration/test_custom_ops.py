"""Operators from libraries: loaded for every session."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper
from small_models import make_model, weights

import onnx_sipp
from onnx_sipp.errors import SippError, UsageError

X = weights(40, 4)


def model_with(domain, op_type):
    node = helper.make_node(op_type, ["x"], ["a", "b"], domain=domain)
    return make_model(
        [node, ("MatMul", "b w", "y")], {"w": weights(4, 6)}, outputs={"y": ["n", 6]},
        domains=[domain],
    )  # fmt: skip


def test_every_session_loads_the_libraries(monkeypatch, tmp_path):
    opened, loaded = [], []
    session = ort.InferenceSession
    library = tmp_path / "ops.so"
    library.write_bytes(b"")
    monkeypatch.setattr(
        ort.SessionOptions, "register_custom_ops_library", lambda self, path: loaded.append(path)
    )
    monkeypatch.setattr(
        ort, "InferenceSession", lambda *a, **k: opened.append(1) or session(*a, **k)
    )
    yes = helper.make_node(
        "If", ["c"], ["y"],
        then_branch=make_model([("MatMul", "x w", "z")], {}, outputs=["z"]).graph,
        else_branch=make_model([("MatMul", "x v", "z")], {}, outputs=["z"]).graph,
    )  # fmt: skip
    for attribute in yes.attribute:
        del attribute.g.input[:]
    compare = [("ReduceSum", "x", "s", {"keepdims": 0}), ("Greater", "s zero", "c")]
    model = make_model(
        [*compare, yes],
        {"w": weights(4, 6), "v": weights(4, 6, seed=1), "zero": np.zeros((), np.float32)},
    )
    onnx_sipp.prune(model, X, custom_ops=[library])
    assert len(opened) == len(loaded) > 6
    assert set(loaded) == {str(library)}
    opened.clear()
    loaded.clear()
    onnx_sipp.sensitivities(model, X, custom_ops=[str(library)])
    assert len(opened) == len(loaded) > 1


def test_a_library_that_is_none(tmp_path):
    library = tmp_path / "ops.so"
    with pytest.raises(UsageError, match=r"no such library of operators: .*ops\.so"):
        onnx_sipp.prune(model_with("odd", "Op"), X, custom_ops=[library])
    library.write_bytes(b"no library")
    with pytest.raises(UsageError, match=r"cannot load the operators of '.*ops\.so'"):
        onnx_sipp.prune(model_with("odd", "Op"), X, custom_ops=[library])


def test_a_real_library():
    extensions = pytest.importorskip("onnxruntime_extensions")
    model = model_with("ai.onnx.contrib", "NegPos")
    with pytest.raises(SippError, match="NegPos"):
        onnx_sipp.prune(model, X)
    library = Path(extensions.get_library_path())
    result = onnx_sipp.prune(model, X, custom_ops=[library])
    assert result.report.zeros == 12
    assert result.report.options["custom_ops"] == [str(library)]
