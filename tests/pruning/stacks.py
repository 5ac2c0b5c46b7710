"""Small layers for tests of selection."""

import numpy as np
from hypothesis import strategies as st


@st.composite
def stacks(draw):
    """Weights of some layers, with zeros, ties and dead rows; and scores with ties."""
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    weights, scores = [], []
    for _ in range(draw(st.integers(1, 4))):
        shape = tuple(rng.integers(1, [3, 6, 9]))
        weight = rng.integers(-3, 4, shape).astype(np.float32)  # a seventh is zero
        score = rng.integers(0, 4, shape).astype(np.float32)
        score[..., 0] = 0  # a dead input
        weights.append(weight)
        scores.append(score)
    return weights, scores
