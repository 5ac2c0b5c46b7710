"""`--providers` reaches whatever runs the user's model on samples."""

import numpy as np
import onnxruntime as ort
import pytest
from small_models import make_model, mlp, weights

from onnx_sipp import UsageError, calibrate, compare, prune, sensitivities, sweep

DATA = weights(24, 4, seed=5)
ASKED = ["AcceleratedExecutionProvider", "CPUExecutionProvider"]


@pytest.fixture
def opened(monkeypatch):
    """The providers of every session; one that does not exist stands for the CPU."""
    found = []
    real = ort.InferenceSession

    def session(source, sess_options=None, providers=None, **more):
        found.append(list(providers or []))
        return real(source, sess_options, providers=["CPUExecutionProvider"], **more)

    monkeypatch.setattr(ort, "InferenceSession", session)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ASKED)
    return found


def two_convolutions():
    nodes = [
        ("Conv", "x a", "h", {"pads": [1, 1, 1, 1]}),
        ("Relu", "h", "r"),
        ("Conv", "r b", "g"),
        ("GlobalAveragePool", "g", "p"),
        ("Flatten", "p", "y"),
    ]
    made = {"a": weights(32, 3, 3, 3), "b": weights(8, 32, 3, 3, seed=1)}
    return make_model(nodes, made, inputs={"x": ["n", 3, 8, 8]})


@pytest.mark.parametrize(
    "work",
    [
        lambda **more: prune(mlp(), DATA, **more),
        lambda **more: prune(mlp(), DATA, method="sipp-hybrid", **more),
        lambda **more: sweep(mlp(), DATA, sparsities=[0.5], **more),
        lambda **more: sweep(mlp(), DATA, per_layer=True, sparsities=[0.5], **more),
        lambda **more: calibrate(mlp(), DATA, **more),
        lambda **more: sensitivities(mlp(), DATA, **more),
        lambda **more: prune(
            two_convolutions(), weights(20, 3, 8, 8), pattern="channels", latency=0.9, align=4,
            **more,
        ),
    ],
    ids=["prune", "masks", "sweep", "layers", "calibrate", "sensitivities", "channels"],
)  # fmt: skip
def test_every_session_has_them(opened, work):
    work(providers=ASKED)
    assert len(opened) > 1
    assert [providers for providers in opened if providers != ASKED] == []


def test_the_metric_of_a_search_has_them(opened, tmp_path):
    np.save(tmp_path / "x.npy", DATA)
    (tmp_path / "judge.py").write_text(
        "import numpy as np\n\ndef evaluate(session):\n"
        f"    data = np.load({str(tmp_path / 'x.npy')!r})\n"
        "    return float(session.run(None, {'x': data})[0].sum())\n"
    )
    prune(
        mlp(), DATA, max_drop=1e9, eval_script=str(tmp_path / "judge.py"), allocation="error",
        providers=ASKED,
    )  # fmt: skip
    assert [providers for providers in opened if providers != ASKED] == []


def test_the_quantiser_calibrates_with_them(opened):
    prune(mlp(), DATA, quantize="int8", providers=ASKED)
    others = [providers for providers in opened if providers != ASKED]
    # Constants are folded, and the result is checked, without running it on samples.
    assert all(providers == ["CPUExecutionProvider"] for providers in others)
    assert len(others) <= 3


def test_compare_has_them(opened, tmp_path):
    compare(mlp(), mlp(), DATA, batch_sizes=[1], seconds=0, providers=ASKED[1:])
    assert [providers for providers in opened if providers != ASKED[1:]] == []


@pytest.mark.parametrize("work", [prune, sweep, calibrate, sensitivities])
def test_a_provider_that_is_not_there(work):
    with pytest.raises(UsageError, match="has no execution provider 'NoSuch'; it has .*CPU"):
        work(mlp(), DATA, providers=["NoSuch", "CPUExecutionProvider"])
    with pytest.raises(UsageError, match="has no execution provider 'NoSuch'"):
        compare(mlp(), mlp(), DATA, seconds=0, providers=["NoSuch"])
