"""Masks that the user gives say which weights stay; what stays is refitted."""

import numpy as np
import onnx
import pytest
from small_models import make_model, mlp, weights

import onnx_sipp
from onnx_sipp import SippError, UsageError, prune
from onnx_sipp.memory import Plan

DATA = weights(60, 4, seed=3)
RNG = np.random.default_rng(5)
FIRST, SECOND = RNG.random((4, 8)) < 0.4, RNG.random((8, 3)) < 0.6


def stored(proto, name):
    (found,) = [one for one in proto.graph.initializer if one.name == name]
    return onnx.numpy_helper.to_array(found)


def output_error(result):
    return result.report.outputs[0].relative_error


@pytest.mark.parametrize("how", ["sequential", "layerwise", "none"])
def test_zeros_lie_where_the_masks_say(how):
    result = prune(mlp(), DATA, masks={"first": FIRST, "second": SECOND}, compensate=how)
    np.testing.assert_array_equal(stored(result.model, "w1") != 0, FIRST)
    np.testing.assert_array_equal(stored(result.model, "w2") != 0, SECOND)
    assert result.report.zeros == (~FIRST).sum() + (~SECOND).sum()
    if how == "none":
        np.testing.assert_array_equal(stored(result.model, "w1"), stored(mlp(), "w1") * FIRST)


def test_the_refit_lowers_the_error():
    masks = {"first": FIRST, "second": SECOND}
    plain, refitted = (prune(mlp(), DATA, masks=masks, compensate=c) for c in ("none", None))
    assert output_error(refitted) < 0.9 * output_error(plain)


def test_the_masks_of_a_run_give_the_same_zeros_again(tmp_path):
    first = prune(mlp(), DATA, sparsity=0.5)
    first.save_masks(tmp_path / "kept.npz")
    for masks in (first.masks, tmp_path / "kept.npz", str(tmp_path / "kept.npz")):
        again = prune(mlp(), DATA, masks=masks)
        assert again.report.zeros == first.report.zeros
        for name, mask in first.masks.items():
            np.testing.assert_array_equal(again.masks[name], mask)


def test_a_layer_without_a_mask_stays_as_it_is_and_that_is_told():
    result = prune(mlp(), DATA, masks={"second": SECOND})
    np.testing.assert_array_equal(stored(result.model, "w1"), stored(mlp(), "w1"))
    (skip,) = result.report.skipped
    assert (skip.name, skip.reason) == ("first", "no mask is given for it")
    assert result.report.prunable == SECOND.size


def test_the_report_names_the_masks(tmp_path):
    np.savez(tmp_path / "kept.npz", second=SECOND)
    report = prune(mlp(), DATA, masks=tmp_path / "kept.npz").report
    assert report.options["masks"] == str(tmp_path / "kept.npz")
    assert [layer.candidate for layer in report.layers] == ["mask"]
    report = prune(mlp(), DATA, masks={"second": SECOND}).report
    assert report.options["masks"] == "of 1 layer, from memory"


def test_a_whole_layer_may_go_and_all_of_it_may_stay():
    result = prune(mlp(), DATA, masks={"first": np.ones_like(FIRST), "second": SECOND < 0})
    assert (stored(result.model, "w1") != 0).all()
    assert not stored(result.model, "w2").any()


@pytest.mark.parametrize("how", ["sequential", "none"])
def test_a_weight_that_was_zero_stays_so_and_that_is_told(how):
    proto = mlp()
    (w1,) = [one for one in proto.graph.initializer if one.name == "w1"]
    w1.CopyFrom(onnx.numpy_helper.from_array(np.where(FIRST, stored(proto, "w1"), 0), "w1"))
    mask = FIRST.copy()
    mask[0] = ~FIRST[0]
    result = prune(proto, DATA, masks={"first": mask}, compensate=how)
    np.testing.assert_array_equal(stored(result.model, "w1") != 0, mask & FIRST)
    count = (mask & ~FIRST).sum()
    told = [warning for warning in result.report.warnings if "masks keep" in warning]
    assert told == [f"{count} of the weights that masks keep were zero before, and stay so"]
    others = prune(mlp(), DATA, masks={"first": mask}).report.warnings
    assert not any("masks keep" in warning for warning in others)


def tied():
    """One tensor that two layers multiply, the second one turned round."""
    nodes = [
        ("Gemm", "x w", "h", {"name": "encode"}),
        ("Relu", "h", "r"),
        ("Transpose", "w", "t", {"perm": [1, 0]}),
        ("MatMul", "r t", "y", {"name": "decode"}),
    ]
    return make_model(nodes, {"w": weights(4, 6, seed=3)}, outputs={"y": ["n", 4]})


@pytest.mark.parametrize("names", [("encode",), ("decode",), ("encode", "decode")])
def test_a_shared_weight_takes_the_mask_of_any_of_its_layers(names):
    mask = RNG.random((4, 6)) < 0.5
    masks = {"encode": mask, "decode": mask.T}
    result = prune(tied(), DATA, masks={name: masks[name] for name in names})
    np.testing.assert_array_equal(stored(result.model, "w") != 0, mask)


def test_masks_of_a_shared_weight_must_agree():
    mask = np.ones((4, 6), bool)
    other = mask.T.copy()
    other[0, 0] = other[2, 3] = False
    with pytest.raises(UsageError, match=r"'encode' and 'decode' .* differ in 2 places"):
        prune(tied(), DATA, masks={"encode": mask, "decode": other})


def test_large_layers_are_cut_in_blocks(monkeypatch):
    masks = {"first": FIRST, "second": SECOND}
    whole = prune(mlp(), DATA, masks=masks, compensate="none")
    monkeypatch.setattr(Plan, "within", classmethod(lambda cls, *_: cls(8, 1)))
    monkeypatch.setattr("onnx_sipp.examining.KEPT_BYTES", 0)
    parts = prune(mlp(), DATA, masks=masks, compensate="none")
    assert parts.model == whole.model
    refitted = prune(mlp(), DATA, masks=masks)
    np.testing.assert_array_equal(stored(refitted.model, "w1") != 0, FIRST)


def test_masks_of_convolutions_have_the_shape_of_their_weights():
    nodes = [
        ("Conv", "x k", "c", {"name": "conv", "group": 2}),
        ("Relu", "c", "r"),
        ("Flatten", "r", "f"),
        ("MatMul", "f m", "y", {"name": "fc"}),
    ]
    proto = make_model(
        nodes, {"k": weights(4, 2, 3, 3), "m": weights(64, 3, seed=1)}, {"x": ["n", 4, 6, 6]}
    )
    masks = {"conv": RNG.random((4, 2, 3, 3)) < 0.5, "fc": RNG.random((64, 3)) < 0.3}
    result = prune(proto, weights(40, 4, 6, 6), masks=masks)
    np.testing.assert_array_equal(stored(result.model, "k") != 0, masks["conv"])
    np.testing.assert_array_equal(stored(result.model, "m") != 0, masks["fc"])


def lstm():
    node = onnx.helper.make_node("LSTM", ["x", "w", "r"], ["y"], name="lstm", hidden_size=5)
    constants = {"w": weights(1, 20, 4), "r": weights(1, 20, 5, seed=1)}
    inputs, outputs = {"x": [7, 1, 4]}, {"y": [7, 1, 1, 5]}
    return make_model([node], constants, inputs, outputs)


def quantised():
    nodes = [
        ("DequantizeLinear", "q s z", "w", {"axis": 1}),
        ("MatMul", "x w", "y", {"name": "product"}),
    ]
    values = {"q": RNG.integers(-99, 99, (4, 6)), "z": RNG.integers(-9, 9, 6)}
    narrow = {name: value.astype(np.int8) for name, value in values.items()}
    return make_model(nodes, {**narrow, "s": np.full(6, 0.02, np.float32)})


@pytest.mark.parametrize(
    ("proto", "feeds"),
    [
        (lstm(), [{"x": weights(7, 1, 4, seed=seed)} for seed in range(20)]),
        (quantised(), DATA),
    ],
    ids=["lstm", "quantised"],
)
def test_masks_come_back_whatever_the_layer(proto, feeds, tmp_path):
    first = prune(proto, feeds, sparsity=0.5)
    first.save_masks(tmp_path / "kept.npz")
    again = prune(proto, feeds, masks=tmp_path / "kept.npz")
    assert again.report.zeros == first.report.zeros == first.report.prunable // 2
    for name, mask in first.masks.items():
        np.testing.assert_array_equal(again.masks[name], mask)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"firts": FIRST}, "a mask for 'firts', but no such layer; did you mean 'first'"),
        ({"zzz": FIRST}, "no such layer; there are first, second"),
        ({"first": FIRST.T}, r"'first' has the shape \[8, 4\], but .* has \[4, 8\]"),
        ({"first": FIRST.astype(np.float32)}, "'first' holds float32 values, where truth"),
        ({}, "there are no masks in it"),
    ],
)
def test_what_does_not_fit_is_named(masks, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        prune(mlp(), DATA, masks=masks)
    np.savez(tmp_path / "kept.npz", **masks)
    with pytest.raises(UsageError, match=f"kept.npz: .*{message}"):
        prune(mlp(), DATA, masks=tmp_path / "kept.npz")


def test_a_mask_for_what_cannot_be_pruned_says_why():
    nodes = [
        ("Gemm", "x w1", "h", {"name": "first"}),
        ("Gather", "table i", "g", {"name": "look"}),
        ("MatMul", "h table", "m", {"name": "tied"}),
        ("Add", "m g", "y"),
    ]
    table = weights(8, 3, seed=1)
    proto = make_model(nodes, {"w1": weights(4, 8), "table": table, "i": np.array([0])})
    with pytest.raises(UsageError, match="'tied', which cannot be pruned: its weight 'table'"):
        prune(proto, DATA, masks={"tied": SECOND})
    masks = {"tied": SECOND}
    result = prune(proto, DATA, masks=masks, include_tied=True)
    np.testing.assert_array_equal(stored(result.model, "table") != 0, SECOND)


def test_what_the_user_excludes_stays_in_spite_of_its_mask():
    masks = {"first": FIRST, "second": SECOND}
    result = prune(mlp(), DATA, masks=masks, exclude_nodes=["first"])
    np.testing.assert_array_equal(stored(result.model, "w1"), stored(mlp(), "w1"))
    with pytest.raises(UsageError, match="all layers that have masks are excluded"):
        prune(mlp(), DATA, masks={"first": FIRST}, exclude_nodes=["first"])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"sparsity": 0.5}, "sparsity"),
        ({"min_agreement": 0.9}, "min_agreement"),
        ({"epsilon": 1.0}, "epsilon"),
        ({"pattern": "2:4"}, "pattern"),
        ({"method": "magnitude"}, "method"),
        ({"rounds": 2}, "rounds"),
        ({"candidates": ["surgeon"]}, "candidates"),
        ({"rules": [{"nodes": "first", "sparsity": 0.3}]}, "rules"),
    ],
)
def test_nothing_else_may_say_what_stays(options, named):
    with pytest.raises(UsageError, match=named):
        prune(mlp(), DATA, masks={"first": FIRST}, **options)


def test_a_sweep_takes_none():
    with pytest.raises(UsageError, match="leave masks out"):
        onnx_sipp.sweep(mlp(), DATA, masks={"first": FIRST})


def test_files_that_are_no_masks_are_refused(tmp_path):
    path = tmp_path / "kept.npz"
    with pytest.raises(UsageError, match="no such file of masks"):
        prune(mlp(), DATA, masks=path)
    path.write_bytes(b"no archive")
    with pytest.raises(SippError, match="cannot be read"):
        prune(mlp(), DATA, masks=path)
    np.savez(path, first=np.array([[None]]))
    with pytest.raises(SippError, match="pickled"):
        prune(mlp(), DATA, masks=path)
