"""The example models in ``models/`` are accurate, valid and small."""

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

MODELS = Path(__file__).resolve().parents[1] / "models"
LOWEST_ACCURACY = 0.96
LARGEST_TOTAL = 3_000_000

OPERATORS = {
    "lenet300": {"Flatten": 1, "Gemm": 3, "Relu": 2},
    "lenet5": {"Conv": 2, "Relu": 4, "MaxPool": 2, "Flatten": 1, "Gemm": 3},
    "resnet_bn": {
        "Conv": 10,
        "BatchNormalization": 10,
        "Relu": 9,
        "Add": 4,
        "GlobalAveragePool": 1,
        "Flatten": 1,
        "Gemm": 1,
    },
    "transformer": {
        "Squeeze": 1,
        "MatMul": 17,
        "Add": 20,
        "LayerNormalization": 5,
        "Reshape": 8,
        "Transpose": 8,
        "Softmax": 2,
        "Div": 2,
        "Erf": 2,
        "Mul": 6,
        "ReduceMean": 1,
        "Gemm": 1,
    },
}
every_model = pytest.mark.parametrize("name", OPERATORS)


def load(name: str) -> onnx.ModelProto:
    """Returns a model by its name."""
    return onnx.load(MODELS / f"{name}.onnx")


def run(name: str, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns a model's logits for a batch of images."""
    session = ort.InferenceSession(MODELS / f"{name}.onnx", providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"input": images})[0])


@every_model
def test_accuracy(name: str) -> None:
    """Each model gets at least 96 % of the test images right."""
    test = np.load(MODELS / "digits-test.npz")
    predicted = run(name, test["input"]).argmax(axis=1)
    assert (predicted == test["labels"]).mean() >= LOWEST_ACCURACY


@every_model
@pytest.mark.parametrize("batch", [1, 5])
def test_batch_is_dynamic(name: str, batch: int) -> None:
    """An image's logits do not depend on the size of its batch."""
    images = np.load(MODELS / "digits-calib.npz")["input"]
    np.testing.assert_allclose(run(name, images[:batch]), run(name, images[:32])[:batch], atol=1e-4)


@every_model
def test_checker_accepts(name: str) -> None:
    """Each model passes the full check, with the versions we promise."""
    model = load(name)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 8
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]


@every_model
def test_interface(name: str) -> None:
    """Each model maps ``input`` [batch, 1, 8, 8] to ``logits`` [batch, 10]."""
    graph = load(name).graph
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {"input": ["batch", 1, 8, 8], "logits": ["batch", 10]}


@every_model
def test_operators(name: str) -> None:
    """Each model has the operators that it is an example of."""
    assert Counter(node.op_type for node in load(name).graph.node) == OPERATORS[name]


@every_model
def test_names_are_unique(name: str) -> None:
    """Every node and every value has a name of its own."""
    graph = load(name).graph
    nodes = [node.name for node in graph.node]
    values = [output for node in graph.node for output in node.output]
    values += [initializer.name for initializer in graph.initializer]
    for names in (nodes, values):
        assert all(names)
        assert len(set(names)) == len(names)


def test_resnet_has_a_strided_shortcut() -> None:
    """One shortcut of the residual network is a 1x1 convolution of stride 2."""
    graph = load("resnet_bn").graph
    convs = [node for node in graph.node if node.name == "block3.shortcut.conv"]
    attributes = {
        attribute.name: onnx.helper.get_attribute_value(attribute)
        for conv in convs
        for attribute in conv.attribute
    }
    assert attributes["kernel_shape"] == [1, 1]
    assert attributes["strides"] == [2, 2]


def test_transformer_weights_are_on_the_right() -> None:
    """The transformer's linear layers are MatMuls with a constant 2-D weight."""
    graph = load("transformer").graph
    weights = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    constant = [
        weights[node.input[1]]
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in weights
    ]
    assert len(constant) == 13
    assert all(weight.ndim == 2 for weight in constant)


def test_weights_are_dense() -> None:
    """The models are not pruned already: almost no weight is zero."""
    for name in OPERATORS:
        for item in load(name).graph.initializer:
            if item.name.endswith(".weight"):
                zeros = (numpy_helper.to_array(item) == 0).mean()
                assert zeros < 0.01, f"{name}: {item.name}"


def test_total_size() -> None:
    """The models and the data together are small enough to keep in git."""
    assert sum(path.stat().st_size for path in MODELS.iterdir()) < LARGEST_TOTAL


def test_data() -> None:
    """The images are in [0, 1], and every class is in the test images."""
    calibration = np.load(MODELS / "digits-calib.npz")
    test = np.load(MODELS / "digits-test.npz")
    assert calibration.files == ["input"]
    assert set(test.files) == {"input", "labels"}
    assert test["labels"].dtype == np.int64
    assert set(test["labels"].tolist()) == set(range(10))
    assert len(test["input"]) == len(test["labels"])
    for images in (calibration["input"], test["input"]):
        assert images.dtype == np.float32
        assert images.shape[1:] == (1, 8, 8)
        assert images.min() == 0
        assert images.max() == 1


def test_calibration_and_test_are_disjoint() -> None:
    """No calibration image is among the test images."""
    calibration, test = (
        {image.tobytes() for image in np.load(MODELS / f"digits-{part}.npz")["input"]}
        for part in ("calib", "test")
    )
    assert len(calibration) == 512
    assert len(test) == 597
    assert not calibration & test
