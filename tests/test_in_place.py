"""A pruned model differs from the original in the pruned tensors, and in nothing else."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from small_models import (
    constant,
    make_model,
    mlp,
    save_external,
    sites_that_may_change,
    weights,
    without_new_biases,
    without_payloads,
)

import onnx_sipp
from onnx_sipp.choices import DEFAULT_METHOD
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model

W = weights(4, 6)


def typed(value):
    """A TensorProto with its elements in a typed field."""
    array = np.asarray(value)
    return helper.make_tensor("t", TensorProto.FLOAT, array.shape, array.ravel().tolist())


def decorated():
    """A model with everything that a careless rewrite loses."""
    model = mlp()
    model.producer_name, model.domain, model.model_version = "maker", "a.b", 3
    model.doc_string = model.graph.doc_string = "text"
    model.metadata_props.add(key="k", value="v")
    model.graph.metadata_props.add(key="k", value="v")
    model.graph.node[0].metadata_props.add(key="k", value="v")
    model.graph.node[0].doc_string = "text"
    model.graph.node[2].name = ""
    model.graph.value_info.append(helper.make_tensor_value_info("h", 1, ["n", 8]))
    note = model.graph.quantization_annotation.add(tensor_name="h")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    model.graph.initializer[0].doc_string = "text"
    model.graph.initializer.append(onnx.numpy_helper.from_array(W, "unused"))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return model


MODELS = {
    "mlp": mlp,
    "decorated": decorated,
    "typed fields": lambda: make_model([("MatMul", "x w", "y")], {"w": typed(W)}),
    "constant node": lambda: make_model([constant("w", W), ("MatMul", "x w", "y")], {}),
    "also an input": lambda: make_model(
        [("MatMul", "x w", "y")], {"w": W}, {"x": ["n", 4], "w": [4, 6]}
    ),
    "weight on the left": lambda: make_model(
        [("MatMul", "w x", "y")], {"w": W}, {"x": ["n", 6, 2]}
    ),
    "batched weight": lambda: make_model(
        [("MatMul", "x w", "y")], {"w": weights(3, 4, 2)}, {"x": ["n", 3, 5, 4]}
    ),
    "shared weight": lambda: make_model(
        [("MatMul", "x w", "h"), ("Gemm", "h w", "y", {"transB": 1})], {"w": weights(4, 4)}
    ),
    "grouped conv": lambda: make_model(
        [("Conv", "x w b", "y", {"group": 2, "auto_pad": "SAME_LOWER"})],
        {"w": weights(4, 1, 3), "b": weights(4)},
        {"x": ["n", 2, 9]},
    ),
    "out of order": lambda: make_model(
        [("MatMul", "h v", "y"), ("MatMul", "x w", "h")], {"w": W, "v": weights(6, 2)}
    ),
}


METHODS = ["magnitude", "sipp-rand", DEFAULT_METHOD]


def differences(before, after, report):
    """Whether a model changed in more than its weights and the biases that the report names."""
    model = lower(Model.load(before))
    sites = sites_that_may_change(model, find_layers(model).layers, report)
    after = without_new_biases(after, report)
    for proto in (before, after):
        without_payloads(proto, sites)
    return before != after


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("sparsity", "method"), [(0.0, "magnitude"), *((0.5, method) for method in METHODS)]
)
def test_in_memory(name, sparsity, method):
    proto = MODELS[name]()
    before = proto.SerializeToString(deterministic=True)
    result = onnx_sipp.prune(proto, num_samples=4, sparsity=sparsity, method=method)
    assert proto.SerializeToString(deterministic=True) == before
    pruned = lower(Model.load(result.model))
    prunable = {layer.weight: layer.view.size for layer in find_layers(pruned).layers}
    zeros = sum(int((pruned.read(weight) == 0).sum()) for weight in prunable)
    assert zeros == round(sparsity * sum(prunable.values())) == result.report.zeros
    if method != DEFAULT_METHOD:
        assert not any(row.bias for row in result.report.layers)
    ort.InferenceSession(result.model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert not differences(proto, result.model, result.report)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("external", [False, True])
def test_files(tmp_path, name, external):
    path = tmp_path / "in.onnx"
    if external:
        save_external(MODELS[name](), path)
    else:
        onnx.save(MODELS[name](), path)
    data = {file: file.read_bytes() for file in tmp_path.iterdir()}
    result = onnx_sipp.prune(path, num_samples=4, sparsity=0.5)
    result.save(tmp_path / "out.onnx")
    assert {file: file.read_bytes() for file in data} == data
    ort.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    before, after = onnx.load(path), onnx.load(tmp_path / "out.onnx")
    assert not differences(before, after, result.report)


@pytest.mark.parametrize("name", ["lenet300", "lenet5", "resnet_bn", "transformer"])
@pytest.mark.parametrize("method", ["magnitude", DEFAULT_METHOD])
def test_trained_models(models, tmp_path, name, method):
    path, data = models / f"{name}.onnx", models / "digits-calib.npz"
    result = onnx_sipp.prune(path, data, num_samples=16, sparsity=0.5, method=method)
    result.save(tmp_path / "out.onnx")
    assert not differences(onnx.load(path), onnx.load(tmp_path / "out.onnx"), result.report)
    assert (tmp_path / "out.onnx").stat().st_size == path.stat().st_size
