"""The digits data: a fixed stratified split, and random small distortions."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from sklearn.model_selection import (  # type: ignore[import-untyped]
    train_test_split,
)
from torch import Tensor
from torch.nn import functional

TEST_IMAGES = 597
CALIBRATION_IMAGES = 512
SPLIT_SEED = 17
PIXEL_MAX = 16.0


@dataclass(frozen=True)
class Digits:
    """Images of shape [N, 1, 8, 8] with pixels in [0, 1], and their labels."""

    train_images: npt.NDArray[np.float32]
    train_labels: npt.NDArray[np.int64]
    test_images: npt.NDArray[np.float32]
    test_labels: npt.NDArray[np.int64]


def load() -> Digits:
    """Loads scikit-learn's handwritten digits in a fixed stratified split."""
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / PIXEL_MAX).astype(np.float32).reshape(-1, 1, 8, 8)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images,
        labels.astype(np.int64),
        test_size=TEST_IMAGES,
        stratify=labels,
        random_state=SPLIT_SEED,
    )
    return Digits(train_images, train_labels, test_images, test_labels)


def save(digits: Digits, folder: Path) -> None:
    """Writes ``digits-calib.npz`` and ``digits-test.npz``.

    The calibration images are the first of the training images, which the
    split has already shuffled.

    Args:
        digits: The split data.
        folder: Where the two files go.
    """
    calibration = digits.train_images[:CALIBRATION_IMAGES]
    np.savez_compressed(folder / "digits-calib.npz", input=calibration)
    np.savez_compressed(
        folder / "digits-test.npz",
        input=digits.test_images,
        labels=digits.test_labels,
    )


def distort(images: Tensor, random: torch.Generator) -> Tensor:
    """Rotates, scales and shifts each image a little, at random.

    Args:
        images: Images of shape [N, 1, 8, 8].
        random: The source of the random numbers.

    Returns:
        The distorted images, of the same shape.
    """
    draws = torch.rand(4, len(images), generator=random) * 2 - 1
    angle = draws[0] * 0.15
    scale = 1 + draws[1] * 0.1
    shift = draws[2:] * 0.2
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = [
        torch.stack([cosine, -sine, shift[0]], dim=1),
        torch.stack([sine, cosine, shift[1]], dim=1),
    ]
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)
