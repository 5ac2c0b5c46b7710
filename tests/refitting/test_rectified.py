"""Refit towards what the next node lets through."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from small_models import make_model, weights

import onnx_sipp
from onnx_sipp.refitting.rectified import Rectifier
from onnx_sipp.statistics.regression import Regression
from onnx_sipp.unfolding import thinning


def chain(activation, **attributes):
    """Two convolutions with an activation behind each, the second one with a skip path."""
    return make_model(
        [
            ("Conv", "x v b", "h", {"pads": [1, 1, 1, 1]}),
            (activation, "h", "a", attributes),
            ("Conv", "a w c", "g", {"pads": [1, 1, 1, 1]}),
            ("Add", "g a", "s"),
            (activation, "s", "y", attributes),
        ],
        {
            "v": weights(8, 3, 3, 3),
            "b": weights(8) - 2,
            "w": weights(8, 8, 3, 3, seed=1) - 0.1,
            "c": weights(8) - 2,
        },
        {"x": ["n", 3, 6, 6]},
    )


def outputs(model, x):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def pruned(model, x, *, rectify, monkeypatch, **options):
    with monkeypatch.context() as patch:
        if not rectify:
            patch.setattr(Rectifier, "refine", lambda _, __, ___, choice, *____: choice)
        return onnx_sipp.prune(model, x, allocation="error", **options).model


@pytest.mark.parametrize(
    ("activation", "attributes"),
    [("Relu", {}), ("HardSwish", {}), ("HardSigmoid", {"alpha": 0.3, "beta": 0.5})],
)
def test_less_error_behind_the_cut(activation, attributes, monkeypatch):
    model = chain(activation, **attributes)
    rng = np.random.default_rng(0)
    x, fresh = rng.standard_normal((2, 96, 3, 6, 6)).astype(np.float32)
    dense = outputs(model, fresh)
    plain, cut = (
        np.linalg.norm(
            outputs(pruned(model, x, rectify=on, monkeypatch=monkeypatch, sparsity=0.7), fresh)
            - dense
        )
        for on in (False, True)
    )
    assert cut < 0.99 * plain


def test_counts_stay_exact(monkeypatch):
    model = chain("Relu")
    x = np.random.default_rng(1).standard_normal((40, 3, 6, 6)).astype(np.float32)
    after = pruned(model, x, rectify=True, monkeypatch=monkeypatch, sparsity=0.6)
    kept = {t.name: onnx.numpy_helper.to_array(t) for t in after.graph.initializer}
    total = kept["v"].size + kept["w"].size
    assert np.sum(kept["v"] == 0) + np.sum(kept["w"] == 0) == round(0.6 * total)


def test_nothing_changes_without_a_cut(monkeypatch):
    model = chain("Tanh")
    x = np.random.default_rng(2).standard_normal((40, 3, 6, 6)).astype(np.float32)
    first, second = (
        pruned(model, x, rectify=on, monkeypatch=monkeypatch, sparsity=0.6) for on in (False, True)
    )
    assert first == second


def test_threads_change_nothing_beyond_rounding(monkeypatch):
    model = chain("Relu")
    x, fresh = np.random.default_rng(3).standard_normal((2, 64, 3, 6, 6)).astype(np.float32)
    one, two = (
        outputs(
            pruned(model, x, rectify=True, monkeypatch=monkeypatch, threads=n, batch_size=16), fresh
        )
        for n in (1, 2)
    )
    np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)


def test_targets_come_from_the_patches_of_the_evidence(monkeypatch):
    monkeypatch.setattr(thinning, "PRODUCTS", 1)
    monkeypatch.setattr(thinning, "PATCHES_PER_INPUT", 8)
    counts = []
    with_targets = Regression.with_targets

    def noting(fit, cross):
        counts.append((fit.count, cross.count))
        return with_targets(fit, cross)

    monkeypatch.setattr(Regression, "with_targets", noting)
    x = np.random.default_rng(3).standard_normal((40, 3, 6, 6)).astype(np.float32)
    pruned(chain("Relu"), x, rectify=True, monkeypatch=monkeypatch, sparsity=0.6, batch_size=7)
    assert counts
    assert all(of_fit == of_targets < 32 * 36 for of_fit, of_targets in counts)
