"""Two models side by side."""

import numpy as np
import onnx
import pytest
from small_models import cell, make_model, mlp, save_external, weights
from sparse_models import three_layers

import onnx_sipp
from onnx_sipp.comparing import footprint
from onnx_sipp.errors import SippError, UsageError

X = weights(20, 4, seed=3)


@pytest.fixture(autouse=True)
def one_load(monkeypatch):
    """Each load is a process that takes a while to start."""
    monkeypatch.setattr(footprint, "_LOADS", 1)


def doubled(model):
    """A copy whose outputs are twice as large."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in copy.graph.initializer:
        if tensor.name in ("w2", "b2"):
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(tensor), tensor.name)
            )
    return copy


def test_a_model_beside_itself():
    model = three_layers(0.9)
    data = np.random.default_rng(0).standard_normal((40, 60), np.float32)
    found = onnx_sipp.compare(model, model, data, batch_sizes=[1, 64], threads=[1], seconds=0.5)
    (output,) = found.outputs
    assert (output.relative_error, output.top1_agreement) == (0, 1)
    assert output.cosine == pytest.approx(1)
    assert found.samples == 40
    assert [(row.batch, row.threads) for row in found.latency] == [(1, 1), (64, 1)]
    for row in found.latency:
        assert abs(row.ratio - 1) < max(0.03, 4 * row.ratio_error)
        assert 0 < row.dense_seconds < 1
        assert row.turns >= 24
    size = len(model.SerializeToString())
    for side in (found.dense, found.pruned):
        assert side.bytes == size
        assert side.bytes_zstd < 0.3 * size
        assert 0 < side.load_seconds < 10
        assert side.peak_bytes > side.base_bytes > 10 << 20
    assert found.metric is None


def test_a_difference_is_seen():
    found = onnx_sipp.compare(mlp(), doubled(mlp()), X, seconds=0)
    (output,) = found.outputs
    assert output.relative_error == pytest.approx(1)
    assert output.cosine == pytest.approx(1)
    assert found.latency == []


def test_a_larger_model_is_slower_and_larger():
    def model(width):
        nodes = [("MatMul", "x v", "h"), ("MatMul", "h w", "y")]
        return make_model(nodes, {"v": weights(4, width), "w": weights(width, 4)})

    found = onnx_sipp.compare(model(100), model(400_000), X, threads=[1], seconds=0.1)
    assert all(row.ratio > 3 for row in found.latency)
    assert found.pruned.bytes > 100 * found.dense.bytes
    assert found.pruned.peak_bytes - found.dense.peak_bytes > found.pruned.bytes


def test_files_with_external_data(tmp_path):
    file = save_external(mlp(), tmp_path / "big.onnx")
    found = onnx_sipp.compare(file, mlp(), X, seconds=0)
    size = sum(one.stat().st_size for one in tmp_path.iterdir())
    assert (found.dense.bytes, found.dense_name) == (size, "big.onnx")
    assert found.outputs[0].relative_error == 0


def test_states_are_fed_back():
    """Errors add up from step to step, as they do in use."""
    steps = np.ones((6, 4), np.float32)
    one = onnx_sipp.compare(cell(0.5), cell(0.9), steps[:1], seconds=0)
    many = onnx_sipp.compare(cell(0.5), cell(0.9), steps, seconds=0)
    assert one.outputs[0].relative_error == 0  # the first state is zero
    assert many.outputs[0].relative_error > 0.01


def test_a_fixed_batch():
    model = make_model([("MatMul", "x w", "y")], {"w": weights(4, 3)}, {"x": [2, 4]}, {"y": [2, 3]})
    found = onnx_sipp.compare(model, model, X, batch_sizes=[1, 2, 8], threads=[1], seconds=0.05)
    assert [row.batch for row in found.latency] == [2]
    assert any("in batches of 1, 8" in warning for warning in found.warnings)


def test_metrics(tmp_path):
    (tmp_path / "judge.py").write_text(
        "import os\n"
        "def evaluate(session):\n"
        "    return len(session.get_outputs())\n"
        "def size(path):\n"
        "    return os.path.getsize(path)\n"
        "def words(session):\n"
        "    return 'good'\n"
        "def broken(session):\n"
        "    return 1 / 0\n"
    )
    script = str(tmp_path / "judge.py")

    def metric(spec):
        return onnx_sipp.compare(mlp(), doubled(mlp()), X, metric=spec, seconds=0).metric

    found = metric(script)
    assert (found.name, found.dense, found.pruned) == ("judge.py:evaluate", 1, 1)
    assert metric(f"{script}:size").dense == len(mlp().SerializeToString())
    assert metric(lambda path: 3).pruned == 3
    with pytest.raises(SippError, match="must return a number, but it returned a str"):
        metric(f"{script}:words")
    with pytest.raises(SippError, match=r"judge.py, line 9: the script failed: ZeroDivisionError"):
        metric(f"{script}:broken")
    with pytest.raises(UsageError, match="has no function 'absent'"):
        metric(f"{script}:absent")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_sizes": [0]}, "batch_sizes must be numbers from 1 on"),
        ({"batch_sizes": []}, "batch_sizes must be numbers from 1 on"),
        ({"threads": [-1]}, "threads must be"),
        ({"seconds": -1}, "seconds must be 0 or more"),
        ({"num_samples": 0}, "num_samples must be at least 1"),
        ({"num_samples": "5"}, "num_samples must be a whole number"),
        ({"batch_sizes": 1}, "batch_sizes must be a list of whole numbers"),
        ({"threads": 1}, "threads must be a list of whole numbers"),
        ({"seconds": "1"}, "seconds must be a number, not '1'"),
        ({"custom_ops": 5}, "custom_ops must be a list"),
        ({"metric": 5}, "metric must be a text"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(UsageError, match=message):
        onnx_sipp.compare(mlp(), mlp(), X, **options)


def test_models_that_do_not_fit_together():
    other = make_model([("MatMul", "x w", "z")], {"w": weights(4, 3)}, outputs={"z": ["n", 3]})
    with pytest.raises(UsageError, match="different outputs, y and z"):
        onnx_sipp.compare(mlp(), other, X)
    other = make_model([("MatMul", "q w", "y")], {"w": weights(4, 3)}, inputs={"q": ["n", 4]})
    with pytest.raises(UsageError, match="different inputs, x and q"):
        onnx_sipp.compare(mlp(), other, X)
