"""Sums of one layer: products of its inputs with themselves, and with its targets."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_sipp.statistics.cross import Cross
from onnx_sipp.statistics.gram import Gram
from onnx_sipp.statistics.multiplying import NUMPY, Multiplier

__all__ = ["Sums"]

# A mean square from which on products in float32 may have no room.
_LARGE = 1e30


@dataclass
class Sums:
    """Sums of one layer, over calibration and over held-out samples."""

    gram: Gram
    cross: Cross
    judge_gram: Gram
    judge_cross: Cross

    @classmethod
    def empty(cls, shape: tuple[int, int, int], multiplier: Multiplier = NUMPY) -> Sums:
        """Nothing seen yet; the Gram matrices, which may be shared, have no room yet either."""
        cross, judge_cross = Cross(*shape, multiplier), Cross(*shape, multiplier)
        return cls(Gram(0, 0), cross, Gram(0, 0), judge_cross)

    def make_room(self) -> None:
        """Get Gram matrices of its own."""
        groups, _, fan_in = self.cross.products.shape
        self.gram = Gram(groups, fan_in, self.cross.multiplier)
        self.judge_gram = Gram(groups, fan_in, self.cross.multiplier)

    def gram_of(self, *, judge: bool) -> Gram:
        """The Gram matrix of one kind of sample."""
        return self.judge_gram if judge else self.gram

    def cross_of(self, *, judge: bool) -> Cross:
        """The products with the targets, of one kind of sample."""
        return self.judge_cross if judge else self.cross

    @property
    def too_large(self) -> bool:
        """Whether float32 has no room for products of what was seen."""
        sums = self.gram, self.judge_gram, self.cross, self.judge_cross
        return not all(one.largest < _LARGE for one in sums)  # NaN is too large

    def merge(self, other: Sums) -> None:
        """Add another layer's sums."""
        self.gram.merge(other.gram)
        self.cross.merge(other.cross)
        self.judge_gram.merge(other.judge_gram)
        self.judge_cross.merge(other.judge_cross)
