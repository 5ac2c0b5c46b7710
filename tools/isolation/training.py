"""Training with a mask held, and what a network gets right."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import custom_from_mask

from isolation.tasks import Images, Task

__all__ = ["Masks", "accuracy", "train", "weights_of"]

# By layer name, what is kept of its weight.
Masks = Mapping[str, Tensor]

_BATCH = 64
_DECAY = 0.05


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """By layer name, what is pruned: weights of convolutions and linear layers, no biases."""
    return {
        name: layer.weight
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    }


def train(
    network: nn.Module, task: Task, images: Images, seed: int, masks: Masks | None = None
) -> None:
    """Train a network from the weights that it has.

    Args:
        network: is trained in place.
        task: says how.
        images: its data.
        seed: of the order of the images.
        masks: what stays; the rest is zero from the start on, in every step.
    """
    random = torch.Generator().manual_seed(seed)
    for name, mask in (masks or {}).items():
        custom_from_mask(network.get_submodule(name), "weight", mask)
    optimizer = torch.optim.AdamW(network.parameters(), lr=task.rate, weight_decay=_DECAY)
    steps = len(images.train) // _BATCH
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, task.rate, total_steps=task.epochs * steps
    )
    loss_of = nn.CrossEntropyLoss()
    for _ in range(task.epochs):
        order = torch.randperm(len(images.train), generator=random)
        for chosen in order[: steps * _BATCH].chunk(steps):
            batch = images.train[chosen]
            if task.flips and torch.rand((), generator=random) < 0.5:
                batch = batch.flip(-1)
            loss = loss_of(network(batch), images.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()


def accuracy(network: nn.Module, images: Images) -> float:
    """Share of the test images that a network gets right."""
    with torch.no_grad():
        found = network(images.test).argmax(1)
    return float((found == images.test_labels).float().mean())
