"""Whole runs whose products are made in onnxruntime, as with CUDA, against those of numpy."""

from itertools import pairwise

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from small_models import make_model, weights

from onnx_sipp import SippError, prune, sweep
from onnx_sipp.calibration.multiplying import RuntimeMultiplier

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def perceptron(*sizes):
    """Gemms with Relu between them."""
    nodes, made, name = [], {}, "x"
    for n, (fan_in, outs) in enumerate(pairwise(sizes)):
        nodes += [("Gemm", f"{name} w{n} b{n}", f"h{n}"), ("Relu", f"h{n}", f"r{n}")]
        made |= {f"w{n}": weights(fan_in, outs, seed=n), f"b{n}": weights(outs, seed=n + 9)}
        name = f"r{n}"
    return make_model(nodes, made, inputs={"x": ["n", sizes[0]]}, outputs=[name])


def correlated(shape):
    """Inputs of which some tell the others, so that a refit makes up for what is dropped."""
    size = int(np.prod(shape[1:]))
    return (weights(shape[0], 12, seed=5) @ weights(12, size, seed=6)).reshape(shape)


def convolutions():
    nodes = [("Conv", "x a", "h"), ("Relu", "h", "r"), ("Conv", "r b", "y", {"group": 2})]
    made = {"a": weights(64, 3, 3, 3), "b": weights(6, 32, 3, 3, seed=1)}
    return make_model(nodes, made, inputs={"x": ["n", 3, 7, 7]})


def shared_weight():
    nodes = [("MatMul", "x s", "h"), ("Relu", "h", "r"), ("MatMul", "r s", "y")]
    return make_model(nodes, {"s": weights(256, 256)}, inputs={"x": ["n", 256]})


# Whether both matrices come in a stack of groups, and the second one is transposed: H is summed
# up group by group, targets and predictions are multiplied all at once.
SUMMED, CROSSED, REFITTED, PREDICTED = (False, True), (True, True), (False, False), (True, False)
CASES = {
    "wide": (
        lambda: perceptron(270, 20, 4), (60, 270), {SUMMED, CROSSED, REFITTED, PREDICTED},
    ),
    "very wide": (
        lambda: perceptron(2100, 2), (40, 2100), {SUMMED, CROSSED, REFITTED, PREDICTED},
    ),
    "groups": (convolutions, (40, 3, 7, 7), {SUMMED, CROSSED, REFITTED}),
    "shared": (shared_weight, (40, 256), {SUMMED, CROSSED, REFITTED}),
}  # fmt: skip


@pytest.fixture
def elsewhere(monkeypatch):
    """Products as with CUDA, but on the CPU provider; what is asked, and their kinds."""
    asked, kinds = [], []

    class Counting(RuntimeMultiplier):
        def product(self, a, b, *, transposed):
            kinds.append((len(a.shape()) > 2, transposed))
            return super().product(a, b, transposed=transposed)

    def multiplier_for(providers):
        asked.append(providers)
        return Counting(CPU)

    monkeypatch.setattr("onnx_sipp.refitting.refitter.multiplier_for", multiplier_for)
    return asked, kinds


def assert_alike(found, expected):
    for name, mask in found.masks.items():
        assert (mask != expected.masks[name]).mean() < 0.01
    one, other = (
        [onnx.numpy_helper.to_array(tensor) for tensor in made.model.graph.initializer]
        for made in (found, expected)
    )
    for mine, theirs in zip(one, other, strict=True):
        close = np.isclose(mine, theirs, rtol=1e-2, atol=1e-3 * np.abs(theirs).max())
        assert close.mean() > 0.98
    for mine, theirs in zip(found.report.outputs, expected.report.outputs, strict=True):
        np.testing.assert_allclose(mine.relative_error, theirs.relative_error, rtol=1e-2)


@pytest.mark.parametrize("case", CASES)
def test_it_is_as_with_numpy(case, request):
    make, shape, made = CASES[case]
    options = {"sparsity": 0.6, "threads": 2, "allocation": "error"}
    data = correlated(shape)
    expected = prune(make(), data, **options)
    asked, kinds = request.getfixturevalue("elsewhere")
    found = prune(make(), data, providers=[CPU], **options)
    assert asked == [[CPU]]
    assert set(kinds) == made
    assert_alike(found, expected)


def test_sums_towards_what_is_predicted_are_made_there_too(elsewhere):
    make, shape, _ = CASES["wide"]
    prune(make(), correlated(shape), sparsity=0.6, threads=1, allocation="error")
    assert (PREDICTED, CROSSED) in pairwise(elsewhere[1])  # else they follow on SUMMED


def test_no_product_of_a_narrow_layer(elsewhere):
    prune(perceptron(20, 255, 5), weights(40, 20, seed=5), sparsity=0.6)
    assert elsewhere == ([None], [])


def test_a_run_that_does_not_refit_multiplies_nothing(elsewhere):
    prune(perceptron(280, 5), weights(40, 280, seed=5), method="sipp-det")
    assert elsewhere == ([], [])


@pytest.mark.parametrize("work", [prune, lambda *a, **k: sweep(*a, sparsities=[0.5], **k)])
def test_cuda_that_does_not_work_is_no_cpu(monkeypatch, work):
    """onnxruntime itself goes on on the CPU where it cannot load CUDA."""
    real = ort.InferenceSession

    def session(source, options=None, providers=None, **more):
        return real(source, options, providers=[CPU], **more)

    monkeypatch.setattr(ort, "InferenceSession", session)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    data = weights(40, 280, seed=5)
    with pytest.raises(SippError, match=CUDA):
        work(perceptron(280, 5), data, providers=[CUDA, CPU])
    work(perceptron(20, 5), data[:, :20], providers=[CUDA, CPU])  # nothing is multiplied there
