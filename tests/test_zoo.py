"""Files from public repositories, in ../shared/zoo: each is read, and pruned where it can be."""

import csv
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from small_models import sites_that_may_change, without_payloads

import onnx_sipp
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model

pytestmark = pytest.mark.shared

# What has no weight that can be pruned yet; the listing says why for each node.
NOT_PRUNABLE = {
    "light_squeezenet": "computed from constants (ConstantOfShape)",
    "ortt_attention_past": "",  # its weight is an input
    "ortt_lr_mnist_sklearn": "",  # no weight node
    "ortt_qattention_u8s8": "",  # its weight is an input
    "superres_plain": "has no value or no type",
    "tract_lgbm": "an embedding table",
    "trt_constant_fold_bloater": "",  # no input, and a weight made by Tile
}
REFUSED_BY_THE_RUNTIME = {"finn_cybsec_custom"}

# Made-up inputs need help: more positions than the model knows; images of 720 by 720 take long. A
# sample rate is no number that can be made up.
OPTIONS = {
    "ortt_gpt2_past": {"input_shapes": {f"past_{i}": (2, 1, 2, 3, 2) for i in range(12)}},
    "winml_fns_candy_ct": {"exclude_nodes": ["convolution", "convolution[!6]*"]},
}
SHAPES = {"ortt_scan_1": {"Input13165": (6, 1, 3)}, "tract_qlstm": {"input": (6, 3)}}
CALIBRATION = {
    "silero_vad_v5": {
        "input": np.random.default_rng(0).standard_normal((4, 576), np.float32),
        "sr": np.array(16000),
    }
}


@cache
def manifest(shared):
    with (shared / "zoo" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_inspect(zoo_file, shared):
    """Each file is read; what the manifest knows of its weights is found."""
    found = onnx_sipp.inspect(zoo_file)
    row = manifest(shared)[str(zoo_file.relative_to(shared / "zoo"))]
    assert bool(found.layers) == (zoo_file.stem not in NOT_PRUNABLE)
    assert 0 <= found.prunable <= found.parameters
    reasons = [skip.reason for skip in found.skipped]
    assert all(reasons)
    if zoo_file.stem in NOT_PRUNABLE:
        expected = NOT_PRUNABLE[zoo_file.stem]
        assert any(expected in reason for reason in reasons) or not expected
        assert bool(reasons) == bool(expected)
    named = [entry.rsplit(":", 1) for entry in row["ops"].split()]
    plain = ("Conv", "Gemm", "MatMul")
    nodes = sum(int(count) for op, count in named if op in plain)
    assert sum(layer.op_type in plain for layer in found.layers) <= nodes


def test_prune(zoo_file, tmp_path):
    """What has layers and runs is pruned to the weight, and nothing else in the file changes."""
    if zoo_file.stem in NOT_PRUNABLE:
        with pytest.raises(onnx_sipp.SippError, match="no weight that can be pruned"):
            onnx_sipp.prune(zoo_file, num_samples=2)
        return
    if zoo_file.stem in REFUSED_BY_THE_RUNTIME:
        with pytest.raises(onnx_sipp.SippError, match="onnxruntime .* refuses the model"):
            onnx_sipp.prune(zoo_file, num_samples=2)
        return
    options = OPTIONS.get(zoo_file.stem, {})
    dense = lower(Model.load(zoo_file))
    layers = find_layers(dense, options.get("exclude_nodes", ())).layers
    by_element = {dense.first_element(layer.weight): layer for layer in layers}
    weights = {layer.weight: layer.view.size for layer in by_element.values()}
    already = sum(int((dense.read(name) == 0).sum()) for name in weights)
    options = {"method": "magnitude", "num_samples": 2, "sparsity": 0.5, **options}
    result = onnx_sipp.prune(zoo_file, CALIBRATION.get(zoo_file.stem), **options)
    result.save(tmp_path / "out.onnx")
    pruned = lower(Model.load(tmp_path / "out.onnx"))
    zeros = sum(int((pruned.read(name) == 0).sum()) for name in weights)
    assert zeros == max(already, round(0.5 * sum(weights.values()))) == result.report.zeros
    before, after = onnx.load(zoo_file), onnx.load(tmp_path / "out.onnx")
    for proto in (before, after):
        without_payloads(proto, sites_that_may_change(dense, layers))
    assert before == after
    session = ort.SessionOptions()
    session.log_severity_level = 4
    ort.InferenceSession(tmp_path / "out.onnx", session, providers=["CPUExecutionProvider"])


def test_layers_in_branches(shared):
    """By default settings, on one sample rate: the other branch is pruned by magnitude."""
    file = shared / "zoo" / "silero_vad_v5.onnx"
    found = onnx_sipp.inspect(file)
    assert found.prunable >= 0.99 * found.parameters
    audio = np.random.default_rng(0).standard_normal((20, 576), np.float32)
    data = {"input": audio, "sr": np.array(16000)}
    result = onnx_sipp.prune(file, data, sparsity=0.3, allocation="error")
    report = result.report
    assert report.calibration.source.endswith("1 sequence, state fed back from stateN")
    assert report.zeros == round(0.3 * report.prunable)
    for layer in report.layers:
        assert layer.observed == ("If_0_then_branch" in layer.name)
        assert layer.observed or abs(layer.sparsity - 0.3) < 0.01
    (warning,) = (text for text in report.warnings if text.startswith("no sample reached"))
    names = [layer.name for layer in report.layers if not layer.observed]
    assert warning.endswith(f"{', '.join(names[:8])} and {len(names) - 8} more (see the report)")


@pytest.mark.parametrize(
    ("stem", "share"), [("ortt_scan_1", 0.7), ("tract_qlstm", 0.7)]
)  # the rest are biases and states
def test_layers_in_scans(shared, stem, share):
    file = shared / "zoo" / f"{stem}.onnx"
    result = onnx_sipp.prune(file, num_samples=8, input_shapes=SHAPES[stem], sparsity=0.5)
    assert result.report.prunable >= share * result.report.parameters
    assert result.report.zeros == round(0.5 * result.report.prunable)
    assert all(layer.observed for layer in result.report.layers)
