"""Masks say which weights were kept."""

import io

import numpy as np
import pytest
from small_models import make_model, mlp, weights

from onnx_sipp import UsageError, prune
from onnx_sipp.graph.model import Model
from onnx_sipp.masks import write_masks

DATA = weights(60, 4, seed=3)


def test_a_file_of_masks_is_true_where_weights_are(tmp_path):
    result = prune(mlp(), DATA, sparsity=0.7)
    result.save_masks(tmp_path / "kept.npz")
    model = Model.load(result.model)
    kept = np.load(tmp_path / "kept.npz", allow_pickle=False)
    assert sorted(kept.files) == ["first", "second"]
    for name, weight in (("first", "w1"), ("second", "w2")):
        np.testing.assert_array_equal(kept[name], model.read(weight) != 0)


def test_any_name_will_do(tmp_path):
    proto = make_model([("Gemm", "x w", "y")], {"w": weights(4, 8)})
    proto.graph.node[0].name = "file"  # which `numpy.savez` takes for its argument
    prune(proto, DATA).save_masks(tmp_path / "kept.npz")
    assert np.load(tmp_path / "kept.npz")["file"].shape == (4, 8)


def test_the_same_masks_give_the_same_bytes():
    files = []
    for _ in range(2):
        out = io.BytesIO()
        write_masks(prune(mlp(), DATA).masks, out)
        files.append(out.getvalue())
    assert files[0] == files[1]


def test_there_are_none_where_channels_were_cut(tmp_path, models):
    result = prune(models / "lenet300.onnx", models / "digits-calib.npz", pattern="channels",
                   sparsity=0.5, num_samples=40)  # fmt: skip
    with pytest.raises(UsageError, match="there are no masks"):
        result.save_masks(tmp_path / "kept.npz")
