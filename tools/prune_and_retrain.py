"""Prunes a model, trains what is left with the mask held, and goes on from there: an example.

    python tools/prune_and_retrain.py
    python tools/prune_and_retrain.py --sparsities 0.9 --epochs 2 --out folder

Each step removes more weights than the one before. Prints what every step gets right, as a table;
with ``--out`` it writes the models and their masks. Needs ``pip install '.[bench]'``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from digits_models.data import Digits, distort, load
from digits_models.networks import LeNet5
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn
from torch.nn.utils import prune as holding

import onnx_sipp

MODELS = Path(__file__).resolve().parents[1] / "models"
SPARSITIES = (0.9, 0.95, 0.98)
BATCH = 64
Masks = Mapping[str, NDArray[np.bool_]]


def network_of(model: onnx.ModelProto) -> LeNet5:
    """The network with the weights of a model; its parameters are called as the constants are."""
    network = LeNet5()
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    network.load_state_dict({name: torch.tensor(constants[name]) for name in network.state_dict()})
    return network


def retrain(network: nn.Module, masks: Masks, digits: Digits, epochs: int) -> None:
    """Train a network; what its masks remove stays zero."""
    for name, mask in masks.items():
        holding.custom_from_mask(network.get_submodule(name), "weight", torch.from_numpy(mask))
    random = torch.Generator().manual_seed(0)
    images, labels = torch.from_numpy(digits.train_images), torch.from_numpy(digits.train_labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    loss_of = nn.CrossEntropyLoss()
    for _ in range(epochs):
        for chosen in torch.randperm(len(images), generator=random).split(BATCH):
            loss = loss_of(network(distort(images[chosen], random)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        rates.step()
    for name in masks:
        holding.remove(network.get_submodule(name), "weight")


def put_back(network: nn.Module, model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model with the weights of a network."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    values = {name: value.numpy() for name, value in network.state_dict().items()}
    for constant in copy.graph.initializer:
        if constant.name in values:
            constant.CopyFrom(numpy_helper.from_array(values[constant.name], constant.name))
    return copy


def accuracy(model: onnx.ModelProto, digits: Digits) -> float:
    """Share of the test images that a model gets right, in per cent."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    scores: Any = session.run(None, {"input": digits.test_images})[0]
    return 100 * float((scores.argmax(1) == digits.test_labels).mean())


def main() -> None:
    """Go through the sparsities."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sparsities", type=float, nargs="+", default=SPARSITIES)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, help="folder for models and masks")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the network is too small for more
    digits, samples = load(), MODELS / "digits-calib.npz"
    dense = current = onnx.load(MODELS / "lenet5.onnx")
    print(f"dense: {accuracy(dense, digits):.1f} %\n")
    print("| sparsity | pruned at once | pruned after the step before | then retrained |")
    print("| ---: | ---: | ---: | ---: |")
    for sparsity in arguments.sparsities:
        pruned = onnx_sipp.prune(current, samples, sparsity=sparsity)
        at_once = pruned if current is dense else onnx_sipp.prune(dense, samples, sparsity=sparsity)
        network = network_of(pruned.model)
        retrain(network, pruned.masks, digits, arguments.epochs)
        trained = put_back(network, pruned.model)
        # Checks that the zeros are where they were, and certifies and measures what is there now.
        result = onnx_sipp.prune(trained, samples, masks=pruned.masks, compensate="none")
        current = result.model
        cells = [accuracy(model, digits) for model in (at_once.model, pruned.model, current)]
        print(f"| {result.report.sparsity:.1%} |", " | ".join(f"{c:.1f}" for c in cells), "|")
        if arguments.out:
            result.save(arguments.out / f"retrained-{sparsity:g}.onnx")
            result.save_masks(arguments.out / f"kept-{sparsity:g}.npz")


if __name__ == "__main__":
    main()
