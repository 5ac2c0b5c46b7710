"""Sums that go from process to process without the zeros of what has not been seen yet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SentWithoutZeros"]


class SentWithoutZeros(ABC):
    """Sums with a large matrix, which is neither sent nor copied while it is zero.

    Attributes:
        count: patches seen.
    """

    count: int
    _products: NDArray[np.floating]

    @abstractmethod
    def _empty(self) -> NDArray[np.floating]:
        """The matrix before anything is seen."""

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        if not self.count:
            del state["_products"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if "_products" not in state:
            self._products = self._empty()
