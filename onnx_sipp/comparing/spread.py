"""Medians and spreads of timings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["median_and_spread"]


def median_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """The median, and the distance between the quartiles."""
    low, middle, high = np.quantile(np.asarray(values, np.float64), (0.25, 0.5, 0.75))
    return float(middle), float(high - low)
