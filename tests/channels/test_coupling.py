"""What is cut together: a cut model equals the uncut one in which nothing reads what is cut."""

import numpy as np
import onnx
import pytest
from cutting import between, coupled, every_other, node
from onnx import helper
from small_models import make_model, weights

C = 8
BETWEEN = {
    "Relu": ([("Relu", ["a"], ["b"])], {}),
    "BatchNormalization": (
        [("BatchNormalization", ["a", "s", "t", "m", "v"], ["b"])],
        {"s": weights(C), "t": weights(C), "m": weights(C), "v": np.abs(weights(C))},
    ),
    "InstanceNormalization": (
        [("InstanceNormalization", ["a", "s", "t"], ["b"])],
        {"s": weights(C), "t": weights(C, seed=3)},
    ),
    "PRelu": ([("PRelu", ["a", "s"], ["b"])], {"s": weights(C, 1, 1)}),
    "a factor and a shift": (
        [("Mul", ["a", "s"], ["c"]), ("Add", ["t", "c"], ["b"])],
        {"s": weights(1, C, 1, 1), "t": weights(C, 8, 8)},
    ),
    "Clip and pools": (
        [("Clip", ["a", "low"], ["c"]), ("MaxPool", ["c"], ["d"], {"kernel_shape": [2, 2]}),
         ("AveragePool", ["d"], ["b"], {"kernel_shape": [2, 2]})],
        {"low": np.float32(0)},
    ),
    "Pad around": (
        [("Pad", ["a", "pads"], ["b"])],
        {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
    ),
    "Resize by scales": (
        [("Resize", ["a", "", "scales"], ["b"])],
        {"scales": np.array([1, 1, 2, 2], np.float32)},
    ),
    "Resize to sizes": (
        [("Resize", ["a", "", "", "sizes"], ["b"])],
        {"sizes": np.array([1, C, 5, 5])},
    ),
    "Split and Concat": (
        [("Split", ["a", "sizes"], ["c", "d"], {"axis": 1}), ("Relu", ["c"], ["e"]),
         ("Concat", ["e", "d"], ["b"], {"axis": 1})],
        {"sizes": np.array([4, 4])},
    ),
    "Split and Concat the other way round": (
        [("Split", ["a"], ["c", "d"], {"axis": 1}), ("Concat", ["d", "c"], ["b"], {"axis": 1})],
        {},
    ),
    "Slices": (
        [("Slice", ["a", "zero", "three", "one"], ["c"]),
         ("Slice", ["a", "three", "end", "one"], ["d"]),
         ("Concat", ["d", "c"], ["b"], {"axis": 1})],
        {"zero": np.array([0]), "three": np.array([3]), "end": np.array([2**40]),
         "one": np.array([1])},
    ),
    "Gather": ([("Gather", ["a", "order"], ["b"], {"axis": 1})],
               {"order": np.array([7, 0, 6, 1, 5, 2, 4, 3])}),
    "depthwise Conv": (
        [("Conv", ["a", "w", "c"], ["b"], {"group": C})],
        {"w": weights(C, 1, 3, 3), "c": weights(C)},
    ),
    "Transpose": (
        [("Transpose", ["a"], ["c"], {"perm": [0, 2, 3, 1]}), ("Mul", ["c", "s"], ["d"]),
         ("Transpose", ["d"], ["b"], {"perm": [0, 3, 1, 2]})],
        {"s": weights(C)},
    ),
    "Reshape of places": (
        [("Reshape", ["a", "flat"], ["c"]), ("Relu", ["c"], ["d"]),
         ("Reshape", ["d", "back"], ["b"])],
        {"flat": np.array([0, C, -1]), "back": np.array([-1, C, 8, 8])},
    ),
    "gate": (
        [("GlobalAveragePool", ["a"], ["c"]), ("Conv", ["c", "w"], ["d"], {"name": "gate"}),
         ("Sigmoid", ["d"], ["e"]), ("Mul", ["a", "e"], ["b"])],
        {"w": weights(C, C, 1, 1)},
    ),
    "skip": (
        [("Conv", ["a", "w"], ["c"], {"name": "inner"}), ("Add", ["a", "c"], ["b"])],
        {"w": weights(C, C, 1, 1)},
    ),
    "Expand": (
        [("ReduceMean", ["a"], ["c"], {"axes": [2, 3]}), ("Expand", ["c", "shape"], ["b"])],
        {"shape": np.array([1, C, 8, 8])},
    ),
    "quantised": (
        [("DequantizeLinear", ["w", "ws"], ["v"], {"axis": 0}),
         ("Conv", ["a", "v"], ["c"], {"name": "quantised"}), ("Add", ["a", "c"], ["b"])],
        {"w": np.arange(-32, 32, dtype=np.int8).reshape(C, C, 1, 1), "ws": np.full(C, 0.02, "f")},
    ),
    "DepthToSpace and back": (
        [("DepthToSpace", ["a"], ["c"], {"blocksize": 2}),
         ("SpaceToDepth", ["c"], ["b"], {"blocksize": 2})],
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BETWEEN)
def test_channels_go_through(name):
    found = coupled(between(*BETWEEN[name]))
    group = found.group("make")
    gone = {
        number: every_other(g) for number, g in enumerate(found.coupling.groups) if not g.reason
    }
    assert group.reason == ""
    assert gone
    cut, errors = found.errors(gone)
    made = {tensor.name: tuple(tensor.dims) for tensor in cut.graph.initializer}
    assert made["make.w"] == (C // 2, 4, 3, 3)
    assert made["make.b"] == (C // 2,)
    assert made["read.w"] == (4, C // 2, 1, 1)
    for error in errors:
        np.testing.assert_allclose(error, 0, atol=2e-4)


OLD = {
    "Split by an attribute": (
        11, [("Split", ["a"], ["c", "d"], {"axis": 1, "split": [3, 5]}), ("Relu", ["c"], ["e"]),
             ("Concat", ["d", "e"], ["b"], {"axis": 1})],
    ),
    "Split in halves": (
        11, [("Split", ["a"], ["c", "d"], {"axis": 1}),
             ("Concat", ["d", "c"], ["b"], {"axis": 1})],
    ),
    "Slices by attributes": (
        9, [("Slice", ["a"], ["c"], {"axes": [1], "starts": [0], "ends": [3]}),
            ("Slice", ["a"], ["d"], {"axes": [1], "starts": [3], "ends": [2**40]}),
            ("Concat", ["d", "c"], ["b"], {"axis": 1})],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_channels_go_through_old_operators(name):
    """Whose sizes are attributes; in files whose constants have to be inputs, with shapes noted."""
    opset, nodes = OLD[name]
    model = between(nodes, {}, opset=opset)
    model.ir_version = 3
    for constant in model.graph.initializer:
        shape = list(constant.dims)
        model.graph.input.append(helper.make_tensor_value_info(constant.name, 1, shape))
    model.graph.value_info.append(helper.make_tensor_value_info("a", 1, ["n", C, 8, 8]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, ["n", 4, 8, 8]))
    found = coupled(model)
    assert found.reason("make") == ""
    number = found.coupling.groups.index(found.group("make"))
    cut, errors = found.errors({number: np.array([1, 2, 4])})
    np.testing.assert_allclose(errors[0], 0, atol=2e-4)
    onnx.checker.check_model(cut, full_check=True)
    noted = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in cut.graph.input}
    assert noted["make.w"] == [C - 3, 4, 3, 3]
    assert noted["read.w"] == [4, C - 3, 1, 1]
    (inner,) = cut.graph.value_info
    assert [d.dim_value for d in inner.type.tensor_type.shape.dim] == [0, C - 3, 8, 8]


def test_channels_that_are_shuffled_go_with_those_of_the_other_groups():
    nodes = [
        ("Reshape", ["a", "parts"], ["c"]),
        ("Transpose", ["c"], ["d"], {"perm": [0, 2, 1, 3, 4]}),
        ("Reshape", ["d", "back"], ["b"]),
    ]
    shapes = {"parts": np.array([0, 2, 4, 8, 8]), "back": np.array([0, 8, 8, 8])}
    found = coupled(between(nodes, shapes))
    group = found.group("make")
    assert (group.count, group.size, group.reason) == (4, 2, "")
    _, errors = found.errors({found.coupling.groups.index(group): np.array([1, 2])})
    np.testing.assert_allclose(errors[0], 0, atol=2e-4)


def test_what_is_padded_beside_channels_can_go_too():
    nodes = [
        ("Pad", ["a", "pads"], ["c"]),
        ("Conv", ["a", "w"], ["d"], {"name": "wide"}),
        ("Add", ["c", "d"], ["b"]),
    ]
    constants = {"pads": np.array([0, 4, 0, 0, 0, 4, 0, 0]), "w": weights(16, 8, 1, 1)}
    found = coupled(between(nodes, constants, read=16))
    free = {i: every_other(g) for i, g in enumerate(found.coupling.groups) if not g.reason}
    assert sorted(g.count for i, g in enumerate(found.coupling.groups) if i in free) == [8, 8]
    cut, errors = found.errors(free)
    assert {tuple(t.dims) for t in cut.graph.initializer if t.name == "w"} == {(8, 4, 1, 1)}
    np.testing.assert_allclose(errors[0], 0, atol=2e-4)


@pytest.mark.parametrize(("groups", "wide"), [(2, 16), (4, 4)])
def test_grouped_convolutions(groups, wide):
    channels = groups * wide
    nodes = [("Conv", ["a", "w", "c"], ["b"], {"group": groups, "name": "grouped"})]
    constants = {"w": weights(channels, wide, 3, 3), "c": weights(channels)}
    found = coupled(between(nodes, constants, channels, channels))
    free = {i: every_other(g) for i, g in enumerate(found.coupling.groups) if not g.reason}
    # Wide groups lose channels of their own, narrow ones go as a whole.
    assert found.group("make").count == (wide if wide >= 16 else groups)
    cut, errors = found.errors(free)
    grouped = next(node for node in cut.graph.node if node.name == "grouped")
    kept = next(a.i for a in grouped.attribute if a.name == "group")
    assert kept == (groups if wide >= 16 else groups // 2)
    np.testing.assert_allclose(errors[0], 0, atol=1e-3)


def test_transposed_convolutions():
    nodes = [("ConvTranspose", ["a", "w", "c"], ["b"], {"name": "up", "strides": [2, 2]})]
    found = coupled(between(nodes, {"w": weights(8, 12, 2, 2), "c": weights(12)}, read=12))
    free = {i: every_other(g) for i, g in enumerate(found.coupling.groups) if not g.reason}
    cut, errors = found.errors(free)
    assert {tuple(t.dims) for t in cut.graph.initializer if t.name == "w"} == {(4, 6, 2, 2)}
    np.testing.assert_allclose(errors[0], 0, atol=1e-3)


def test_channels_are_flattened_into_a_gemm():
    model = make_model(
        [
            ("Conv", "x w", "a", {"name": "make"}),
            ("Flatten", "a", "f"),
            ("Gemm", "f g c", "h", {"transB": 1, "name": "hidden"}),
            ("Relu", "h", "r"),
            ("MatMul", "r o", "y", {"name": "out"}),
        ],
        {"w": weights(8, 4, 3, 3), "g": weights(20, 288), "c": weights(20), "o": weights(20, 5)},
        inputs={"x": ["n", 4, 8, 8]},
    )
    found = coupled(model)
    assert found.group("make").size == 36
    assert found.group("hidden").count == 20
    assert "output 'y'" in found.reason("out")
    free = {i: every_other(g) for i, g in enumerate(found.coupling.groups) if not g.reason}
    cut, errors = found.errors(free)
    shapes = {t.name: tuple(t.dims) for t in cut.graph.initializer}
    assert shapes["g"] == (10, 144)
    assert shapes["o"] == (10, 5)
    np.testing.assert_allclose(errors[0], 0, atol=1e-3)


def attention(shapes_from_input=False):
    """Two heads of width 4, with their shapes stored or calculated from the input's."""
    split, merge = {"split": np.array([0, -1, 2, 4])}, {"merge": np.array([0, -1, 8])}
    nodes = []
    if shapes_from_input:
        nodes = [
            ("Shape", ["x"], ["lengths"]),
            ("Slice", ["lengths", "zero", "two"], ["lead"]),
            ("Concat", ["lead", "parts"], ["split"], {"axis": 0}),
            ("Concat", ["lead", "whole"], ["merge"], {"axis": 0}),
        ]
        split = {"zero": np.array([0]), "two": np.array([2]), "parts": np.array([2, 4])}
        merge = {"whole": np.array([8])}
    for name in "qkv":
        nodes += [
            ("MatMul", ["x", f"{name}.w"], [f"{name}.m"], {"name": name}),
            ("Add", [f"{name}.m", f"{name}.b"], [f"{name}.a"]),
            ("Reshape", [f"{name}.a", "split"], [f"{name}.r"]),
            ("Transpose", [f"{name}.r"], [f"{name}.t"],
             {"perm": [0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]}),
        ]  # fmt: skip
    nodes += [
        ("MatMul", ["q.t", "k.t"], ["s"]),
        ("Softmax", ["s"], ["p"]),
        ("MatMul", ["p", "v.t"], ["h"]),
        ("Transpose", ["h"], ["ht"], {"perm": [0, 2, 1, 3]}),
        ("Reshape", ["ht", "merge"], ["c"]),
        ("MatMul", ["c", "o.w"], ["y"], {"name": "o"}),
    ]
    constants = {f"{n}.w": weights(6, 8, seed=i) for i, n in enumerate("qkv")}
    constants |= {f"{n}.b": weights(8, seed=i) for i, n in enumerate("qkv")}
    constants |= {**split, **merge, "o.w": weights(8, 6)}
    return make_model([node(*parts) for parts in nodes], constants, inputs={"x": ["n", "s", 6]})


@pytest.mark.parametrize("shapes_from_input", [False, True])
def test_heads_are_cut_as_a_whole(shapes_from_input):
    found = coupled(attention(shapes_from_input))
    group = found.group("q")
    assert (group.count, group.size, group.reason) == (2, 4, "")
    cut, errors = found.errors({found.coupling.groups.index(group): np.array([0])})
    assert {tuple(t.dims) for t in cut.graph.initializer if t.name == "k.w"} == {(6, 4)}
    np.testing.assert_allclose(errors[0], 0, atol=1e-4)


def test_counts_of_a_convolution_stay_on_the_grid_if_only_some_of_its_channels_can_go():
    nodes = [
        ("Split", ["a", "sizes"], ["c", "d"], {"axis": 1}),
        ("Softmax", ["c"], ["e"], {"axis": 1}),
        ("Concat", ["e", "d"], ["b"], {"axis": 1}),
    ]
    found = coupled(between(nodes, {"sizes": np.array([6, 14])}, 20, 20))
    by_count = {group.count: group for group in found.coupling.groups}
    assert by_count[6].reason.startswith("Softmax")
    assert by_count[14].counts(None) == [14, 10, 6, 2]


def test_a_grid_that_is_too_wide_is_a_reason():
    assert "grid" in coupled(between([("Relu", ["a"], ["b"])], {}), align=16).reason("make")


STUCK = {
    "reaches the output": ([("Relu", ["a"], ["b"])], {}, ("y", "a"), "output 'a'"),
    "normalised over": (
        [("Transpose", ["a"], ["c"], {"perm": [0, 2, 3, 1]}),
         ("LayerNormalization", ["c", "s"], ["d"]),
         ("Transpose", ["d"], ["b"], {"perm": [0, 3, 1, 2]})],
        {"s": weights(8)}, ("y",), "normalises over",
    ),
    "reduced": (
        [("ReduceMean", ["a"], ["c"], {"axes": [1]}), ("Add", ["a", "c"], ["b"])],
        {}, ("y",), "sums them up",
    ),
    "unknown operator": (
        [("LRN", ["a"], ["b"], {"size": 3})], {}, ("y",), "not known how its channels",
    ),
    "compared": ([("Softmax", ["a"], ["b"], {"axis": 1})], {}, ("y",), "compares them"),
}  # fmt: skip


@pytest.mark.parametrize("name", STUCK)
def test_reasons(name):
    nodes, constants, outputs, reason = STUCK[name]
    model = between(nodes, constants)
    for output in outputs[1:]:
        model.graph.output.add().name = output
    assert reason in coupled(model).reason("make")


def test_excluded_readers_and_makers_keep_their_channels():
    model = between([("Relu", ["a"], ["b"])], {})
    assert "excluded" in coupled(model, exclude_nodes=["read"]).reason("make")
    assert "excluded" in coupled(model, exclude_nodes=["make"]).reason("make")


def test_a_graph_that_counts_its_channels_is_found_out_by_running():
    nodes = [
        ("Shape", ["a"], ["c"]),
        ("Gather", ["c", "one"], ["d"]),
        ("Cast", ["d"], ["e"], {"to": 1}),
        ("Div", ["a", "e"], ["b"]),
    ]
    assert "changes" in coupled(between(nodes, {"one": np.array(1)})).reason("make")
