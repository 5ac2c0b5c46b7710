"""A real network in integers: how small it gets, and that it runs in them."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import onnx_sipp

pytestmark = pytest.mark.shared


def test_nine_tenths_of_zeros_in_integers_packed(shared, tmp_path):
    data, source = shared / "data", shared / "data" / "resnet20-cifar10.onnx"
    result = onnx_sipp.prune(
        source,
        data / "cifar10-calib.npz",
        sparsity=0.9,
        method="magnitude",
        num_samples=32,
        quantize="int8",
        storage="packed",
    )
    report = result.save(tmp_path / "small.onnx")
    assert report.bytes_after <= 0.06 * source.stat().st_size
    assert report.quantization.zeros >= report.quantization.zeros_before == report.zeros
    assert report.quantization.relative_errors["logits"] < 0.1
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    session = ort.InferenceSession(tmp_path / "small.onnx", options)
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert (kinds.count("QLinearConv"), kinds.count("Conv")) == (19, 0)
    images = np.load(data / "cifar10-test.npz")["input"][:50]
    dense = onnx_sipp.unpack(tmp_path / "small.onnx").model.SerializeToString()
    plain = ort.InferenceSession(dense).run(None, {"input": images})[0]
    assert session.run(None, {"input": images})[0].tobytes() == plain.tobytes()
