"""Statistics of layers that are made up, and what methods decide on them."""

import numpy as np

from onnx_sipp.pruning.deciding import decide
from onnx_sipp.pruning.importance import LayerStatistics

# Those that choose a mask from the statistics alone.
MASKING = ("magnitude", "wanda", "random", "sipp-det", "sipp-rand", "sipp-hybrid")
SHAPES = ((1, 6, 25), (4, 2, 9), (1, 4, 300))


def some_layers(seed=0, shapes=SHAPES):
    """Statistics as a network might have them: dead inputs, zeros already there, ties."""
    rng = np.random.default_rng(seed)
    layers = []
    for shape in shapes:
        weight = rng.standard_normal(shape).astype(np.float32)
        weight[rng.random(shape) < 0.05] = 0
        weight[..., :2] = 0.5  # ties
        largest = rng.random(shape).astype(np.float32)
        # Sampling pays where all weights matter alike, ranking where few matter.
        peaked = np.arange(shape[1])[:, None] % 2 == 1
        largest = np.where(peaked, largest**4, 0.2 + largest / 9)
        largest = largest.astype(np.float32) * (weight != 0)
        largest[..., -3:] = 0  # dead inputs
        layers.append(
            LayerStatistics(
                weight,
                sensitivity_max=largest,
                sensitivity_mean=largest * rng.random(shape).astype(np.float32),
                second_moment=rng.random((shape[0], 1, shape[2])) * (np.arange(shape[2]) < 20),
                patches=2,
            )
        )
    return layers


def total(layers):
    return sum(layer.weight.size for layer in layers)


def run(layers, goal, method, allocation, seed=0):
    return decide(layers, goal, method, allocation, np.random.default_rng(seed))
