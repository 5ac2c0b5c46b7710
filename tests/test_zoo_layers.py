"""Recurrent, fused and transposed layers of files from public repositories, in ../shared/zoo."""

from pydoc_data.topics import topics

import numpy as np
import pytest
from lowered_models import run

import onnx_sipp
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model

pytestmark = pytest.mark.shared

# Share of all parameters that layers reach: the rest are biases, norms and embeddings.
REACHED = {
    "dtln_model_1": 0.99,
    "gtcrn_simple": 0.87,
    "hand_point_history_lstm": 0.96,
    "openseeface_mnv3_detection": 0.97,
    "ortt_cntk_bilstm": 0.66,
    "silero_vad_openvino_16k": 0.99,
    "tract_byte_bidi_lstm": 0.96,
    "winml_fns_candy_ct": 0.99,
}
ALONE = {"LSTM", "GRU", "RNN", "Conv", "ConvTranspose", "FusedConv", "MatMul", "Gemm"}


@pytest.mark.parametrize("name", REACHED)
def test_reached(shared, name):
    found = find_layers(lower(Model.load(shared / "zoo" / f"{name}.onnx")))
    assert found.prunable >= REACHED[name] * found.parameters
    kinds = {skip.op_type.rpartition(".")[2] for skip in found.skipped}
    assert not kinds & ALONE


def pieces_of_text(start, count, length=48):
    """English text as bytes, ``[1, length]``, from different topics of Python's own help."""
    text = "\n".join(topics[name] for name in sorted(topics)[start::2]).encode()
    places = np.linspace(0, len(text) - length, count).astype(int)
    return [np.frombuffer(text[at : at + length], np.uint8)[None] for at in places]


def test_a_model_of_bytes_on_text(shared):
    """At 30 %, refitted weights err less than those of the magnitude method, on fresh text."""
    path = shared / "zoo" / "tract_byte_bidi_lstm.onnx"
    dense = Model.load(path).inlined()
    calibration = [{"input": x} for x in pieces_of_text(0, 24)]
    fresh = [{"input": x} for x in pieces_of_text(1, 24)]
    before = np.stack([run(dense, feed)["output"] for feed in fresh])
    errors = {}
    for method in ("mixed", "magnitude"):
        result = onnx_sipp.prune(path, calibration, sparsity=0.3, method=method)
        assert result.report.zeros == round(0.3 * result.report.prunable)
        after = np.stack([run(result.model, feed)["output"] for feed in fresh])
        errors[method] = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert errors["mixed"] < 0.5 * errors["magnitude"]
