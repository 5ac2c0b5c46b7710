"""Trains the small digit classifiers and writes them into ``models/``.

Needs PyTorch, scikit-learn, onnx and onnxruntime. It runs on one CPU thread
with fixed seeds: two runs on one machine write the same bytes.

    python tools/make_models.py [folder]
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from digits_models import data, export, networks
from digits_models.training import Network, Schedule, train

MODELS_FOLDER = Path(__file__).resolve().parents[1] / "models"
LOWEST_ACCURACY = 0.96
LARGEST_DIFFERENCE = 1e-3

Maker = Callable[[data.Digits], tuple[torch.nn.Module, onnx.ModelProto]]


def recipe(kind: type[Network], graph: Callable[[Network], onnx.ModelProto], epochs: int) -> Maker:
    """Returns the function that trains one network and builds its model.

    Args:
        kind: The class of the network.
        graph: Builds the ONNX model of a trained network.
        epochs: The number of passes over the training images.

    Returns:
        A function from the data to the trained network and its model.
    """

    def make(digits: data.Digits) -> tuple[torch.nn.Module, onnx.ModelProto]:
        network = train(kind, digits, Schedule(epochs=epochs))
        return network, graph(network)

    return make


RECIPES: dict[str, Maker] = {
    "lenet300": recipe(networks.LeNet300, export.lenet300_graph, epochs=80),
    "lenet5": recipe(networks.LeNet5, export.lenet5_graph, epochs=60),
    "resnet_bn": recipe(networks.ResNet, export.resnet_graph, epochs=40),
    "transformer": recipe(networks.Transformer, export.transformer_graph, epochs=100),
}


def accuracy(network: torch.nn.Module, model: onnx.ModelProto, digits: data.Digits) -> float:
    """Returns the test accuracy of a model in onnxruntime.

    Args:
        network: The trained network that the model was built from.
        model: The model.
        digits: The data.

    Returns:
        The share of the test images that get the right label.

    Raises:
        ValueError: The model's logits are not those of the network.
    """
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    logits = np.asarray(session.run(["logits"], {"input": digits.test_images})[0])
    with torch.no_grad():
        expected = network(torch.from_numpy(digits.test_images)).numpy()
    difference = float(np.abs(logits - expected).max())
    if difference > LARGEST_DIFFERENCE:
        raise ValueError(f"the ONNX graph differs from the network by {difference}")
    return float((logits.argmax(axis=1) == digits.test_labels).mean())


def main() -> int:
    """Makes every model and prints its accuracy.

    Returns:
        0, or 1 if a model is less accurate than it must be.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=MODELS_FOLDER)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    digits = data.load()
    data.save(digits, folder)
    worst = 1.0
    for name, make in RECIPES.items():
        start = time.perf_counter()
        network, model = make(digits)
        seconds = time.perf_counter() - start
        score = accuracy(network, model, digits)
        worst = min(worst, score)
        onnx.save(model, folder / f"{name}.onnx")
        count = sum(parameter.numel() for parameter in network.parameters())
        print(f"{name}: accuracy {score:.4f}, {count} parameters, {seconds:.0f} s")
    return 0 if worst >= LOWEST_ACCURACY else 1


if __name__ == "__main__":
    sys.exit(main())
