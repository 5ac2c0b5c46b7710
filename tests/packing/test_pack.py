"""Packing: what every runtime makes of it, and what is left alone."""

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import onnxruntime as ort
import openvino
import pytest
from onnx.reference import ReferenceEvaluator
from small_models import constant, make_model, save_external, weights
from sparse_models import sparse, three_layers

import onnx_sipp
from onnx_sipp.errors import UsageError
from onnx_sipp.graph.walk import all_nodes

X = np.random.default_rng(9).standard_normal((5, 60), np.float32)


def in_onnxruntime(model):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": X})[0]


def in_openvino(model):
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU")
    return compiled({"x": X})[0]


def in_reference(model):
    return ReferenceEvaluator(model).run(None, {"x": X})[0]


def through_graphsurgeon(model):
    return in_onnxruntime(gs.export_onnx(gs.import_onnx(model)))


RUNTIMES = [in_onnxruntime, in_openvino, in_reference, through_graphsurgeon]


@pytest.mark.parametrize("run", RUNTIMES)
@pytest.mark.parametrize("opset", [11, 12, 13, 17, 21])
@pytest.mark.parametrize("share", [0.5, 0.85, 0.97])
def test_outputs_are_the_same_to_the_bit(run, opset, share):
    model = three_layers(share, opset)
    result = onnx_sipp.pack(model)
    assert len(result.report.packed) == 3
    onnx.checker.check_model(result.model, full_check=True)
    assert run(model).tobytes() == run(result.model).tobytes()


def test_every_encoding_is_used_where_it_is_the_shortest():
    kinds = {}
    for share in (0.5, 0.85, 0.99):
        model = make_model(
            [("MatMul", "x w", "y")],
            {"w": sparse(60, 400, share=share)},
            {"x": ["n", 60]},
            {"y": ["n", 400]},
        )
        (tensor,) = onnx_sipp.pack(model).report.packed
        kinds[share] = tensor.encoding
        assert in_openvino(onnx_sipp.pack(model).model).shape == (5, 400)
    assert kinds == {0.5: "mask", 0.85: "nibbles", 0.99: "gaps"}


def test_runtimes_fold_it(tmp_path):
    """Nothing is left to be done with every inference."""
    for share in (0.5, 0.85, 0.97):
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        packed = onnx_sipp.pack(three_layers(share)).model
        ort.InferenceSession(packed.SerializeToString(), options, ["CPUExecutionProvider"])
        left = onnx.load(tmp_path / "optimized.onnx").graph.node
        assert sorted({node.op_type for node in left}) == ["MatMul", "Relu"]


def test_sizes_are_those_of_the_report(tmp_path):
    model = three_layers(0.9)
    onnx.save(model, tmp_path / "dense.onnx")
    result = onnx_sipp.pack(tmp_path / "dense.onnx")
    written = result.save(tmp_path / "packed.onnx")
    size = (tmp_path / "packed.onnx").stat().st_size
    assert written == size == result.report.bytes_after == len(result.model.SerializeToString())
    assert result.report.bytes_before == (tmp_path / "dense.onnx").stat().st_size
    saved = sum(tensor.bytes_before - tensor.bytes_after for tensor in result.report.packed)
    assert result.report.bytes_before - size == pytest.approx(saved, rel=0.1)


@pytest.mark.parametrize("values", [(-0.0,), (np.nan, np.inf), (1e-45,)])
def test_odd_values_survive(values):
    model = three_layers(0.9)
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, : len(values)] = values
    model.graph.initializer[0].raw_data = weight.tobytes()
    assert onnx_sipp.unpack(onnx_sipp.pack(model).model).model == model


@pytest.mark.parametrize("values", ["fp16", "int8"])
def test_lossy_values(values):
    model = three_layers(0.7)
    exact, packed = onnx_sipp.pack(model), onnx_sipp.pack(model, values=values)
    assert packed.report.bytes_after < 0.8 * exact.report.bytes_after
    dense = onnx_sipp.unpack(packed.model).model
    for tensor, before, after in zip(
        packed.report.packed, model.graph.initializer, dense.graph.initializer, strict=True
    ):
        one, two = map(onnx.numpy_helper.to_array, (before, after))
        assert ((one == 0) <= (two == 0)).all()
        error = np.linalg.norm(one - two) / np.linalg.norm(one)
        assert tensor.relative_error == pytest.approx(error)
        assert 0 < error < (1e-3 if values == "fp16" else 1e-2)
    for run in RUNTIMES:
        assert run(packed.model) == pytest.approx(run(dense), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types(dtype):
    model = three_layers(0.9, dtype=dtype)
    for values in ("exact", "int8"):
        result = onnx_sipp.pack(model, values=values)
        assert len(result.report.packed) == 3
        back = onnx_sipp.unpack(result.model).model
        assert (back == model) == (values == "exact")


def test_quantised_weights():
    """The zero point is found without looking for it."""
    level = np.random.default_rng(0).integers(0, 255, (60, 40)).astype(np.uint8)
    level[np.random.default_rng(1).random(level.shape) < 0.9] = 117
    model = make_model(
        [("DequantizeLinear", "q s z", "w"), ("MatMul", "x w", "y")],
        {"q": level, "s": np.array(0.01, np.float32), "z": np.array(117, np.uint8)},
        {"x": ["n", 60]},
        {"y": ["n", 40]},
    )
    result = onnx_sipp.pack(model)
    (tensor,) = result.report.packed
    assert tensor.name == "q"
    assert tensor.kept == (level != 117).sum()
    assert tensor.bytes_after < 0.4 * level.nbytes
    assert onnx_sipp.unpack(result.model).model == model
    for run in (in_onnxruntime, through_graphsurgeon):
        assert run(result.model).tobytes() == run(model).tobytes()
    # OpenVINO takes other kernels where it meets a quantised constant at once.
    expected = X @ (0.01 * (level.astype(np.float32) - 117))
    error = np.abs(in_openvino(result.model) - expected).max()
    assert error <= 0.02 * np.abs(expected).max()


def test_what_does_not_pay_is_left_as_it_is(tmp_path):
    model = three_layers(0.0)
    result = onnx_sipp.pack(model)
    assert result.report.packed == []
    assert all("too few to pay" in left.reason for left in result.report.left)
    assert len(result.report.left) == 3
    assert result.model == model


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda model: setattr(model.opset_import[0], "version", 10), "opset 10 lacks"),
        (lambda model: setattr(model, "ir_version", 3), "IR version 3"),
        (
            lambda model: model.graph.input.append(
                onnx.helper.make_tensor_value_info("w1", onnx.TensorProto.FLOAT, [60, 50])
            ),
            "also an input of the graph",
        ),
    ],
)
def test_reasons(change, reason):
    model = three_layers(0.9)
    change(model)
    assert reason in {left.name: left.reason for left in onnx_sipp.pack(model).report.left}["w1"]


def test_bodies_and_functions_are_left_alone():
    body = make_model(
        [("MatMul", "x v", "o")], {"v": sparse(60, 30, share=0.9)}, {"x": ["n", 60]}, {"o": None}
    ).graph
    del body.input[:]
    branch = onnx.helper.make_node(
        "If", ["c"], ["y"], then_branch=body, else_branch=body, name="branch"
    )
    model = make_model(
        [constant("c", np.array(True)), branch], {}, {"x": ["n", 60]}, {"y": ["n", 30]}
    )
    result = onnx_sipp.pack(model)
    assert [left.name for left in result.report.left] == ["v", "v"]
    assert all("inside a subgraph" in left.reason for left in result.report.left)
    assert result.model == model


def test_names_do_not_clash():
    model = three_layers(0.9)
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = "pk0.a"
    packed = onnx_sipp.pack(model).model
    names = [name for node in all_nodes(packed) for name in node.output]
    names += [tensor.name for tensor in packed.graph.initializer]
    assert len(names) == len(set(names))
    assert in_onnxruntime(packed).tobytes() == in_onnxruntime(model).tobytes()


def test_refused():
    packed = onnx_sipp.pack(three_layers(0.9)).model
    with pytest.raises(UsageError, match="packed already"):
        onnx_sipp.pack(packed)
    with pytest.raises(UsageError, match="exact, fp16, int8, not 'int4'"):
        onnx_sipp.pack(packed, values="int4")


def loaded(path):
    """A model with its external data inside, as if it had always been there."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.DEFAULT:
            tensor.ClearField("data_location")
    return model


def test_external_data(tmp_path):
    source = tmp_path / "in"
    target = tmp_path / "out"
    source.mkdir()
    target.mkdir()
    model = make_model(
        [("MatMul", "x w", "h"), ("MatMul", "h v", "y")],
        {"w": sparse(60, 500, share=0.9), "v": weights(500, 30)},
        {"x": ["n", 60]},
        {"y": ["n", 30]},
    )
    inline = onnx.ModelProto.FromString(model.SerializeToString())
    file = save_external(model, source / "in.onnx")
    before = (source / "weights.bin").read_bytes()
    result = onnx_sipp.pack(file)
    written = result.save(target / "out.onnx")
    assert written == sum(file.stat().st_size for file in target.iterdir())
    assert written == pytest.approx(result.report.bytes_after, abs=200)  # the data file's name
    session = ort.InferenceSession(target / "out.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": X})[0].tobytes() == in_onnxruntime(inline).tobytes()
    assert loaded(target / "out.onnx") == result.model

    back = onnx_sipp.unpack(target / "out.onnx")
    back.save(target / "back.onnx")
    assert loaded(target / "back.onnx") == inline == back.model
    assert (source / "weights.bin").read_bytes() == before
