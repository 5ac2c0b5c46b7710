"""Pruning end to end."""

import gc
import weakref

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import make_model, mlp, save_external, weights

from onnx_sipp import SippError, UsageError, prune
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.sites import Sites

DATA = np.random.default_rng(0).standard_normal((60, 4), np.float32)
EXAMPLES = ("lenet300", "lenet5", "resnet_bn", "transformer")
every_model = pytest.mark.parametrize("name", EXAMPLES)
# Those that leave the weights they keep as they are, or reweight them without bias.
MASKING = ("magnitude", "wanda", "random", "sipp-det", "sipp-rand", "sipp-hybrid")
every_method = pytest.mark.parametrize("method", MASKING)


def prunable(path_or_proto):
    """Stored names of all prunable weights."""
    return {layer.weight for layer in find_layers(lower(Model.load(path_or_proto))).layers}


def zeros_in(proto, names):
    model = Model.load(proto)
    return sum(int(np.count_nonzero(model.read(name) == 0)) for name in names)


def only_these_differ(before, after, names):
    """Whether two models are the same but for the elements of some constants."""
    copies = []
    for proto in (before, after):
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        model = Model(copy)
        for name in names:
            values = model.read(name)
            model.replace(name, np.zeros_like(values))
        copies.append(copy.SerializeToString(deterministic=True))
    return copies[0] == copies[1]


def as_type(proto, data_type):
    """The same model in another floating-point type."""
    numpy_type = onnx.helper.tensor_dtype_to_np_dtype(data_type)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = data_type
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(numpy_type), tensor.name)
        )
    return proto


# Counts


@every_model
@every_method
def test_examples_get_exactly_the_zeros_asked_for(models, name, method):
    path = models / f"{name}.onnx"
    names = prunable(path)
    before = onnx.load(path)
    result = prune(path, models / "digits-calib.npz", sparsity=0.7, method=method, num_samples=40)
    report = result.report
    assert report.zeros == round(0.7 * report.prunable) == zeros_in(result.model, names)
    assert only_these_differ(before, result.model, names)
    session = ort.InferenceSession(result.model.SerializeToString())
    images = np.load(models / "digits-test.npz")["input"][:5]
    assert session.run(None, {"input": images})[0].shape == (5, 10)
    assert all(np.isfinite(row.measured_error) for row in report.layers)
    assert sum(int((~mask).sum()) for mask in result.masks.values()) == report.zeros


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.7, 0.9, 0.99])
@every_method
def test_counts_with_zeros_dead_inputs_and_ties(sparsity, method):
    first = weights(4, 8)
    first[0, :3] = 0  # zeros already there
    first[1] = 0.25  # ties
    data = DATA.copy()
    data[:, 3] = 0  # a dead input
    model = make_model(
        [("Gemm", "x w1 b", "h", {"name": "first"}), ("Relu", "h", "r"), ("MatMul", "r w2", "y")],
        {"w1": first, "w2": weights(8, 3, seed=1), "b": weights(8)},
    )
    result = prune(model, data, sparsity=sparsity, method=method)
    assert zeros_in(result.model, ["w1", "w2"]) == max(round(sparsity * 56), 3)
    assert result.report.zeros_before == 3
    warned = any("zero before" in warning for warning in result.report.warnings)
    assert warned == (sparsity == 0)


@every_method
def test_sparsity_zero_changes_nothing(method):
    result = prune(mlp(), DATA, sparsity=0, method=method)
    assert result.model.SerializeToString() == mlp().SerializeToString()
    (output,) = result.report.outputs
    assert output.relative_error == 0
    assert all(mask.all() for mask in result.masks.values())


def test_excluded_layers_are_left_alone():
    result = prune(mlp(), DATA, sparsity=0.5, method="magnitude", exclude_nodes=["sec*"])
    assert list(result.masks) == ["first"]
    assert only_these_differ(mlp(), result.model, ["w1"])
    assert result.report.zeros == 16


# The same again


@every_method
def test_the_same_bytes_again(models, method, tmp_path):
    path, data = models / "lenet5.onnx", models / "digits-calib.npz"
    written = []
    for run in range(2):
        target = tmp_path / f"{run}.onnx"
        prune(path, data, method=method, num_samples=40, seed=5).save(target)
        written.append(target.read_bytes())
    assert written[0] == written[1]


@every_model
@pytest.mark.parametrize("method", ["magnitude", "wanda", "sipp-det", "sipp-rand", "sipp-hybrid"])
def test_threads_and_batches_change_nothing(models, name, method):
    path = models / f"{name}.onnx"

    def run(**options):
        result = prune(
            path,
            models / "digits-calib.npz",
            sparsity=0.6,
            method=method,
            num_samples=48,
            **options,
        )
        return result, Model(result.model)

    first, model = run(threads=2)
    for options in ({"threads": 1, "batch_size": 1}, {"batch_size": 7}, {"batch_size": 32}):
        other, other_model = run(**options)
        same = sum(int((first.masks[n] == other.masks[n]).sum()) for n in first.masks)
        assert same >= 0.999 * first.report.prunable
        for weight in prunable(path):
            ours, theirs = model.read(weight), other_model.read(weight)
            both = (ours != 0) & (theirs != 0)
            close = np.isclose(ours[both], theirs[both], rtol=1e-4)
            assert np.mean(close) >= 0.999
        for one, two in zip(first.report.layers, other.report.layers, strict=True):
            assert one.epsilon_median == pytest.approx(two.epsilon_median, rel=1e-2)
            assert one.sensitivity_sum_worst == pytest.approx(two.sensitivity_sum_worst, rel=1e-3)
            assert one.measured_error == pytest.approx(two.measured_error, rel=2e-2)


# The input


def test_the_input_is_never_changed(tmp_path):
    path = tmp_path / "in.onnx"
    proto, data = mlp(), DATA.copy()
    onnx.save(proto, path)
    before = path.read_bytes()
    prune(path, data, sparsity=0.5).save(tmp_path / "out.onnx")
    prune(proto, data, sparsity=0.5)
    assert path.read_bytes() == before
    assert proto.SerializeToString() == mlp().SerializeToString()
    np.testing.assert_array_equal(data, DATA)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.onnx", "out.onnx"]


def test_external_data(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    path = save_external(mlp(), folder / "in.onnx")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    result = prune(path, DATA, sparsity=0.5, method="wanda")
    report = result.save(tmp_path / "out.onnx")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    written = onnx.load(tmp_path / "out.onnx")
    assert zeros_in(written, ["w1", "w2"]) == 28
    files = [tmp_path / "out.onnx", tmp_path / "out.onnx.data"]
    assert report.bytes_after == sum(file.stat().st_size for file in files)
    inside = prune(mlp(), DATA, sparsity=0.5, method="wanda")
    for name in ("w1", "w2"):
        np.testing.assert_array_equal(Model(written).read(name), Model(inside.model).read(name))


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sipp-hybrid", "sipp-rand"])
@pytest.mark.parametrize("data_type", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_floating_point_types(method, data_type):
    model = as_type(
        make_model(
            [("MatMul", "x w1", "h"), ("Relu", "h", "r"), ("MatMul", "r w2", "y")],
            {"w1": weights(4, 8), "w2": weights(8, 3, seed=1)},
        ),
        data_type,
    )
    result = prune(model, DATA, sparsity=0.5, method=method, delta=0.1)
    assert zeros_in(result.model, ["w1", "w2"]) == 28
    sampled = sum(row.sampled_halves for row in result.report.layers)
    for name in ("w1", "w2"):
        old, new = Model(model).read(name), Model(result.model).read(name)
        assert new.dtype == old.dtype
        assert np.all(np.isfinite(new))
        if not sampled:
            np.testing.assert_array_equal(new[new != 0], old[new != 0])
    assert np.isfinite(result.report.outputs[0].relative_error)


def test_float64_weights_keep_all_their_bits():
    values = np.random.default_rng(0).standard_normal((4, 8)) * (1 + 1e-12)
    model = as_type(make_model([("MatMul", "x w", "y")], {"w": values}), TensorProto.DOUBLE)
    kept = Model(prune(model, DATA, sparsity=0.5, method="magnitude").model).read("w")
    np.testing.assert_array_equal(kept[kept != 0], values[kept != 0])
    untouched = Model(prune(model, DATA, sparsity=0.0, method="magnitude").model).read("w")
    np.testing.assert_array_equal(untouched, values)


def test_a_reweighted_half_precision_weight_does_not_overflow():
    """Weights near the largest of float16, some of which sampling makes larger."""
    values = np.where(weights(4, 8) > 0, 60_000, -60_000).astype(np.float16)
    model = make_model([("MatMul", "x w", "m"), ("Mul", "m small", "y")],
                       {"w": values, "small": np.float16(1e-4)})  # fmt: skip
    as_type(model, TensorProto.FLOAT16)
    result = prune(model, DATA * 1e-3, sparsity=0.5, method="sipp-rand", delta=0.5)
    assert sum(row.sampled_halves for row in result.report.layers) > 0
    new = Model(result.model).read("w")
    assert np.all(np.isfinite(new))
    assert np.count_nonzero(new) == 16


# The certificate as the goal


@pytest.mark.parametrize("method", ["sipp-det", "sipp-hybrid", "magnitude"])
def test_pruning_to_a_certificate(models, method):
    options = {"epsilon": 0.5, "delta": 0.1, "num_samples": 60, "method": method}
    result = prune(models / "lenet300.onnx", models / "digits-calib.npz", **options)
    assert all(row.epsilon_worst <= 0.5 for row in result.report.layers)
    assert 0 < result.report.sparsity < 1
    assert result.report.options["sparsity"] is None
    assert result.report.zeros == zeros_in(result.model, prunable(models / "lenet300.onnx"))


def test_epsilon_zero_drops_what_no_sample_needs():
    data = DATA.copy()
    data[:, 1] = 0
    result = prune(mlp(), data, epsilon=0, method="magnitude")
    assert not result.masks["first"][1].any()
    (output,) = result.report.outputs
    assert output.relative_error < 1e-6


# The report


def test_report(models):
    result = prune(
        models / "resnet_bn.onnx", models / "digits-calib.npz", method="magnitude", num_samples=100
    )
    report = result.report
    assert report.sparsity == pytest.approx(0.5, abs=1e-4)
    assert (report.calibration.samples, report.calibration.held_out) == (80, 20)
    assert [row.name for row in report.layers] == list(result.masks)
    assert report.parameters > report.prunable
    assert (report.bytes_before, report.bytes_after) == (
        (models / "resnet_bn.onnx").stat().st_size,
        None,
    )
    assert any("the theory asks for" in warning for warning in report.warnings)
    assert not any("CALIBRATION" in warning for warning in report.warnings)


def test_made_up_inputs_are_warned_of():
    report = prune(mlp(), sparsity=0.5).report
    assert report.calibration.synthetic
    assert report.warnings[0].startswith("NO CALIBRATION DATA")


def test_progress(models):
    stages, done = [], []

    class Listener:
        def stage(self, name):
            stages.append(name)

        def advance(self, amount, total):
            done.append((stages[-1], amount, total))

    data = models / "digits-calib.npz"
    prune(models / "lenet300.onnx", data, method="magnitude", num_samples=50, progress=Listener())
    assert len(stages) == len(set(stages)) >= 3
    for stage in {stage for stage, _, _ in done}:
        parts = [(amount, total) for name, amount, total in done if name == stage]
        assert sum(amount for amount, _ in parts) == parts[0][1]


# Large numbers


def scaled(scale, dtype=np.float32):
    """A model of which all is so many times as large, and its data."""
    model = make_model(
        [
            ("Gemm", "x w1 b1", "h", {"name": "first"}),
            ("Relu", "h", "r"),
            ("Gemm", "r w2 b2", "y", {"name": "second"}),
        ],
        {
            "w1": weights(12, 16).astype(dtype), "b1": (weights(16) * scale).astype(dtype),
            "w2": weights(16, 5, seed=1).astype(dtype),
            "b2": (weights(5, seed=2) * scale).astype(dtype),
        },
        {"x": ["n", 12]},
        {"y": ["n", 5]},
    )  # fmt: skip
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return model, (weights(60, 12, seed=3) * scale).astype(dtype)


METHODS = [{}, {"method": "wanda"}, {"rounds": 2}, {"pattern": "channels"}]


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("options", METHODS, ids=["mixed", "wanda", "rounds", "channels"])
def test_nothing_depends_on_how_large_activations_are(options):
    plain, large = (prune(*scaled(2.0**n), sparsity=0.5, **options).report for n in (0, 45))
    assert large.outputs[0].relative_error == pytest.approx(
        plain.outputs[0].relative_error, rel=1e-4
    )
    for layer, same in zip(large.layers, plain.layers, strict=True):
        assert layer.measured_error == pytest.approx(same.measured_error, rel=1e-4)
    assert not any("float32" in told for told in large.warnings)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("options", METHODS[:3], ids=["mixed", "wanda", "rounds"])
@pytest.mark.parametrize("power", [55, 64, 110])
def test_activations_may_be_too_large_to_learn_from(options, power):
    """Their squares have no room in float32."""
    report = prune(*scaled(2.0**power), sparsity=0.5, **options).report
    assert report.zeros == round(0.5 * report.prunable)
    assert 0 < report.outputs[0].relative_error < 1
    if not options.get("method"):
        (told,) = [words for words in report.warnings if "float32" in words]
        assert told.endswith("scale the model or its inputs down: first, second")


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_float64_models_make_no_noise():
    found = prune(*scaled(1.0, np.float64), sparsity=0.5).report
    assert found.zeros == found.prunable // 2


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("scale", [3e15, 1e17, 1e19])
@pytest.mark.parametrize("wide", [512, 2100])
def test_wide_layers_with_very_large_inputs(wide, scale):
    model = make_model(
        [
            ("MatMul", "x w1", "h1", {"name": "first"}),
            ("MatMul", "x w2", "h2", {"name": "second"}),
            ("Add", "h1 h2", "y"),
        ],
        {"w1": weights(wide, 6), "w2": weights(wide, 6, seed=1)},
        {"x": ["n", wide]},
        {"y": ["n", 6]},
    )
    report = prune(model, weights(40, wide, seed=3) * np.float32(scale), sparsity=0.5).report
    assert report.zeros == report.prunable // 2
    (told,) = [words for words in report.warnings if "float32" in words]
    assert told.endswith("scale the model or its inputs down: first, second")
    for layer in report.layers:
        assert layer.observed
        assert (layer.damping, layer.refit_error) == (None, None)
        assert 0 < layer.measured_error < 1
    assert not any("refit did not lower" in words for words in report.warnings)


# Refusals


def test_nothing_to_prune():
    with pytest.raises(SippError, match="no weight that can be pruned"):
        prune(make_model([("Relu", "x", "y")], {}), DATA)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, "sparsity must be"),
        ({"sparsity": -0.1}, "sparsity must be"),
        ({"sparsity": float("nan")}, "sparsity must be"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"epsilon": 0.1, "sparsity": 0.5}, "not both"),
        ({"delta": 0.0}, "delta"),
        ({"method": "best"}, "there is no method"),
        ({"method": "sipp-rand", "allocation": "lamp"}, "works with the allocations"),
        ({"threads": 0}, "threads must be"),
        ({"method": "sipp-det", "floor": 0.2}, "a floor goes with the default method"),
        ({"epsilon": 2.0, "floor": 0.2}, "a floor goes with the default method"),
        ({"allocation": "lamp", "floor": 0.2}, r"measured error \(auto, error, impact\)"),
        ({"method": "wanda", "candidates": ["surgeon"]}, "leave candidates out"),
        ({"method": "wanda", "rounds": 2}, "leave rounds out, or add a refit"),
        ({"state_reset": 3}, "leave state_reset out"),
        ({"sparsty": 0.5}, "did you mean 'sparsity'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UsageError, match=message):
        prune(mlp(), DATA, **options)


def test_what_is_usual_may_be_said():
    """Files that write all options down say it."""
    report = prune(mlp(), DATA, method="wanda", floor=0.01, rounds=1, candidates=[]).report
    assert report.zeros == round(0.5 * report.prunable)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": "0.5"}, "sparsity must be a number, not '0.5'; leave the quotes out"),
        ({"sparsity": "half"}, "sparsity must be a number, not 'half'$"),
        ({"sparsity": True}, "sparsity must be a number, not True"),
        ({"threads": "2"}, "threads must be a whole number, not '2'; leave the quotes out"),
        ({"rounds": 1.5}, "rounds must be a whole number, not 1.5"),
        ({"memory_limit": "much"}, "memory_limit must be a size, like 2GB, not 'much'"),
        ({"memory_limit": -1}, "memory_limit is negative"),
        ({"include_tied": 1}, "include_tied must be true or false, not 1"),
        ({"exclude_nodes": 5}, "exclude_nodes must be a list of texts"),
        ({"exclude_nodes": np.array(5)}, "exclude_nodes must be a list of texts"),
        ({"exclude_nodes": ["first", 5]}, "exclude_nodes must be a list of texts"),
        ({"exclude_op_types": {"Gemm": 1}}, "exclude_op_types must be a list of texts"),
        ({"custom_ops": 5}, "custom_ops must be a list of texts"),
        ({"states": ["h"]}, "states must be outputs by input"),
        ({"input_shapes": {"x": 4}}, "input_shapes must be shapes by name"),
        ({"masks": 5}, "masks must be a text, the path of a file, or arrays"),
        ({"workdir": 5}, "workdir must be a text, the path of a folder"),
        ({"eval_script": 5, "max_drop": 1}, "eval_script must be a text, like judge.py:accuracy"),
        ({"method": 5}, "method must be a text, not 5"),
        ({"pattern": 4}, "pattern must be a text, not 4"),
        ({"rules": {"nodes": "first", "sparsity": 0.5}}, "rules must be a list, like"),
        ({"rules": 5}, "rules must be a list, like"),
        ({"rules": [5]}, "a rule must be a mapping, like"),
    ],
)
def test_values_of_another_kind(options, message):
    with pytest.raises(UsageError, match=message):
        prune(None, None, **options)  # it is told before anything is read


def test_paths_of_any_kind(tmp_path):
    class Place:
        def __fspath__(self):
            return str(tmp_path / "m.onnx")

    onnx.save(mlp(), tmp_path / "m.onnx")
    assert prune(Place(), DATA, workdir=tmp_path).report.model == "m.onnx"


def test_what_is_no_model_and_no_data():
    with pytest.raises(UsageError, match="the model must be a path, .*, not int"):
        prune(5, DATA)
    with pytest.raises(UsageError, match="calibration data cannot be a int"):
        prune(mlp(), 5)


def test_numbers_of_numpy_are_numbers():
    options = {"sparsity": np.float32(0.5), "threads": np.int64(1), "include_tied": np.bool_(True)}
    rules = [{"nodes": "first", "sparsity": np.float32(0.25)}]
    report = prune(mlp(), DATA, **options, rules=rules, seed=np.int32(3)).report
    kept = report.to_dict()["options"]
    assert (kept["sparsity"], kept["threads"], kept["seed"]) == (0.5, 1, 3)
    assert {type(kept[name]) for name in ("sparsity", "threads", "include_tied")} == {
        float, int, bool,
    }  # fmt: skip
    assert report.layers[0].zeros == 8


def test_a_text_alone_is_a_list_of_one():
    options = {"exclude_nodes": "second", "providers": "CPUExecutionProvider"}
    report = prune(mlp(), DATA, method="magnitude", memory_limit="2GB", **options).report
    assert [layer.name for layer in report.layers] == ["first"]
    assert report.to_dict()["options"]["providers"] == ["CPUExecutionProvider"]
    assert report.to_dict()["options"]["memory_limit"] == 2 << 30


# Must show 4


@pytest.mark.shared
@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7, 0.9])
def test_resnet20(shared, tmp_path, sparsity):
    path = shared / "data" / "resnet20-cifar10.onnx"
    data = shared / "data" / "cifar10-calib.npz"
    result = prune(path, data, sparsity=sparsity, method="magnitude", num_samples=40)
    target = tmp_path / "out.onnx"
    result.save(target)
    names = prunable(path)
    assert len(names) == len(result.report.layers) == 20
    before, after = onnx.load(path), onnx.load(target)
    total = sum(Model(before).read(name).size for name in names)
    assert zeros_in(after, names) == round(sparsity * total)
    assert only_these_differ(before, after, names)
    ort.InferenceSession(target)


def test_nothing_of_a_run_waits_for_the_garbage_collector(monkeypatch):
    """What is large goes as soon as nobody has the result any more."""
    seen = []
    make = Sites.__init__
    monkeypatch.setattr(
        Sites, "__init__", lambda own, *given: (seen.append(weakref.ref(own)), make(own, *given))[1]
    )
    gc.collect()
    gc.disable()
    try:
        result = prune(mlp(), weights(40, 4), sparsity=0.5)
        assert any(one() is not None for one in seen)
        del result
        assert all(one() is None for one in seen)
    finally:
        gc.enable()
