"""Which weights stay, by the methods that are compared; all at the same sparsity of the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import onnx_sipp
from isolation.tasks import Images, Task
from isolation.training import Masks, weights_of

__all__ = ["METHODS", "SNIP_BATCH", "Question"]

# Labelled images that SNIP's one batch has, and samples that SiPP is calibrated on.
SNIP_BATCH = 128
SIPP_SAMPLES = 256


@dataclass(frozen=True)
class Question:
    """What a method is asked.

    Attributes:
        network: to prune, not changed.
        task: that it is for.
        images: its data.
        sparsity: share of all weights to remove.
        seed: of everything random.
    """

    network: nn.Module
    task: Task
    images: Images
    sparsity: float
    seed: int


def _sipp(method: str) -> Callable[[Question], Masks]:
    def masks(asked: Question) -> Masks:
        found = onnx_sipp.prune(
            asked.task.graph(asked.network),
            asked.images.calibration,
            method=method,
            sparsity=asked.sparsity,
            compensate="none",
            num_samples=SIPP_SAMPLES,
            threads=1,
            seed=asked.seed,
        ).masks
        return {name: torch.from_numpy(np.array(mask)) for name, mask in found.items()}

    return masks


def _magnitude(asked: Question) -> Masks:
    return _largest({n: w.abs() for n, w in weights_of(asked.network).items()}, asked.sparsity)


def _snip(asked: Question) -> Masks:
    """|g·w| on one batch (Lee, Ajanthan, Torr: SNIP, 2019)."""
    random = torch.Generator().manual_seed(asked.seed)
    chosen = torch.randperm(len(asked.images.train), generator=random)[:SNIP_BATCH]
    weights = weights_of(asked.network)
    loss = nn.CrossEntropyLoss()(
        asked.network(asked.images.train[chosen]), asked.images.labels[chosen]
    )
    gradients = torch.autograd.grad(loss, list(weights.values()))
    scores = zip(weights.items(), gradients, strict=True)
    return _largest({name: (w * g).abs() for (name, w), g in scores}, asked.sparsity)


def _random(asked: Question) -> Masks:
    random = torch.Generator().manual_seed(asked.seed)
    scores = {
        name: torch.rand(weight.shape, generator=random)
        for name, weight in weights_of(asked.network).items()
    }
    return _largest(scores, asked.sparsity)


def _largest(scores: Mapping[str, Tensor], sparsity: float) -> Masks:
    """Keep what scores highest in all layers together, exactly as many as asked for."""
    flat = torch.cat([score.detach().flatten() for score in scores.values()])
    kept = torch.zeros(len(flat), dtype=torch.bool)
    kept[flat.topk(len(flat) - round(sparsity * len(flat))).indices] = True
    parts = kept.split([score.numel() for score in scores.values()])
    return {
        name: part.reshape(score.shape)
        for (name, score), part in zip(scores.items(), parts, strict=True)
    }


# By the name that tables use. `random` looks at no weights.
METHODS: Mapping[str, Callable[[Question], Masks]] = {
    "SiPP, ranked": _sipp("sipp-det"),
    "SiPP, hybrid": _sipp("sipp-hybrid"),
    "magnitude": _magnitude,
    "SNIP": _snip,
    "random": _random,
}
