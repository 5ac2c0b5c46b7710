"""What is learned, and by which network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from digits_models.data import load
from digits_models.export import lenet5_graph, lenet300_graph
from digits_models.graph import GraphBuilder
from digits_models.networks import LeNet5, LeNet300
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["CIFAR", "DIGITS", "CifarNet", "Images", "Task", "cifar_images", "digits_images"]

# Of the labelled CIFAR images, how many are learned from; the others are tested on.
CIFAR_TRAINED = 1500


@dataclass(frozen=True)
class Images:
    """Data of a task.

    Attributes:
        train: images to learn from.
        labels: of these.
        test: images to be judged by.
        test_labels: of these.
        calibration: what SiPP sees, without labels.
    """

    train: Tensor
    labels: Tensor
    test: Tensor
    test_labels: Tensor
    calibration: NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """A network, and how it is trained.

    Attributes:
        name: for people.
        network: makes it, with random weights.
        graph: gives the same as an ONNX model.
        epochs: passes over the images.
        rate: peak of the one-cycle learning rate.
        flips: whether batches are mirrored at random.
    """

    name: str
    network: Callable[[], nn.Module]
    graph: Callable[[Any], onnx.ModelProto]
    epochs: int
    rate: float
    flips: bool = False


class CifarNet(nn.Module):
    """Three convolutions, each followed by pooling, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.fc = nn.Linear(64 * 4 * 4, 10)
        self.pool = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits, [N, 10]."""
        features = images
        for conv in (self.conv1, self.conv2, self.conv3):
            features = self.pool(conv(features).relu())
        logits: Tensor = self.fc(features.flatten(1))
        return logits


def _cifar_graph(network: CifarNet) -> onnx.ModelProto:
    builder, value = GraphBuilder(), "input"
    for number in (1, 2, 3):
        value = builder.conv(value, getattr(network, f"conv{number}"), f"conv{number}")
        value = builder.op("Relu", [value], f"relu{number}")
        value = builder.op("MaxPool", [value], f"pool{number}", kernel_shape=[2, 2], strides=[2, 2])
    flat = builder.op("Flatten", [value], "flatten", axis=1)
    return builder.build("cifarnet", builder.gemm(flat, network.fc, "fc"), (3, 32, 32))


DIGITS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task("LeNet300-100 (digits)", LeNet300, lenet300_graph, epochs=30, rate=3e-3),
        Task("LeNet5 (digits)", LeNet5, lenet5_graph, epochs=20, rate=3e-3),
    )
}
CIFAR = Task("Three convolutions (CIFAR-10)", CifarNet, _cifar_graph, 10, 3e-3, flips=True)


def digits_images() -> Images:
    """scikit-learn's digits in the split that the models of ``models/`` are trained on."""
    digits = load()
    parts = (digits.train_images, digits.train_labels, digits.test_images, digits.test_labels)
    return Images(*map(torch.from_numpy, parts), digits.train_images[:512])


def cifar_images(labelled: Path, calibration: Path) -> Images:
    """Images from files.

    Args:
        labelled: ``.npz`` with ``input`` and ``labels``; the first are learned from.
        calibration: ``.npz`` with ``input``.
    """
    with np.load(labelled, allow_pickle=False) as found:
        images, labels = torch.from_numpy(found["input"]), torch.from_numpy(found["labels"])
    with np.load(calibration, allow_pickle=False) as found:
        unlabelled = found["input"]
    cut = CIFAR_TRAINED
    return Images(images[:cut], labels[:cut], images[cut:], labels[cut:], unlabelled)
