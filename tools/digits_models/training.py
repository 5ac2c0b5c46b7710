"""Training with fixed seeds, so that two runs give the same weights."""

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from digits_models.data import Digits, distort

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Schedule:
    """How one network is trained.

    Attributes:
        epochs: The number of passes over the training images.
        learning_rate: The peak of the one-cycle learning rate.
        weight_decay: The decoupled weight decay of AdamW.
        batch: The number of images of one step.
        seed: The seed of the weights, the order and the distortions.
    """

    epochs: int
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    batch: int = 64
    seed: int = 1


def train(kind: type[Network], digits: Digits, schedule: Schedule) -> Network:
    """Trains a network on the training images and returns its last weights.

    Args:
        kind: The class of the network.
        digits: The data; only the training images are used.
        schedule: How to train.

    Returns:
        The trained network, in evaluation mode.
    """
    torch.manual_seed(schedule.seed)
    random = torch.Generator().manual_seed(schedule.seed)
    network = kind()
    images = torch.from_numpy(digits.train_images)
    labels = torch.from_numpy(digits.train_labels)
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
    )
    steps = len(images) // schedule.batch
    rates = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.learning_rate, total_steps=schedule.epochs * steps
    )
    loss_of = nn.CrossEntropyLoss()
    for _ in range(schedule.epochs):
        order = torch.randperm(len(images), generator=random)
        for chosen in order[: steps * schedule.batch].chunk(steps):
            loss = loss_of(network(distort(images[chosen], random)), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
    return network.eval()
