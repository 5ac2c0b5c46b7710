"""Leave out patches where a layer has far more of them than its least squares need.

Sums over patches cost ``patches * fan_in ** 2`` multiplications. A convolution over large images
has millions of patches, of which neighbours say much the same; some hundred per unknown fix the
solution as well. Which ones are kept depends on their number in the order of the samples alone, not
on how the samples are batched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

import numpy as np

from onnx_sipp.statistics.gram import MOST_BYTES
from onnx_sipp.unfolding.base import Float32, MatMulUnfolding, Unfolding

__all__ = ["Thinning", "patches_in"]

# Multiplications that the sums of a layer may take; and patches per input of a neuron that are kept
# whatever they cost. Fewer do in haste, to compare budgets.
PRODUCTS, HASTY_PRODUCTS = 5e10, 2e9
PATCHES_PER_INPUT, HASTY_PATCHES = 256, 64

# Multiples of the golden ratio, modulo 1, are spread evenly over any stretch of places.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def patches_in(
    unfolding: Unfolding, matrix: tuple[int, int, int], shapes: Sequence[tuple[int, ...]]
) -> list[int]:
    """Patches of batches, by the shape of the layer's activation; see `Thinning`."""
    groups, _, fan_in = matrix
    return [unfolding.patch_bytes(shape) // (4 * groups * fan_in) for shape in shapes]


class Thinning:
    """Which patches of a layer are looked at.

    Args:
        unfolding: of the layer. The rows of a MatMul are too few to be thinned for speed, and need
            not lie sample after sample; of a very wide one, H would not fit into memory.
        matrix: shape ``(groups, out, fan_in)`` of the layer's matrix.
        counts: of patches, batch after batch.
        hasty: whether a rough solution will do.
    """

    def __init__(
        self,
        unfolding: Unfolding,
        matrix: tuple[int, int, int],
        counts: Sequence[int],
        *,
        hasty: bool = False,
    ) -> None:
        self._shares = 1.0
        groups, _, fan_in = matrix
        *self._first, total = accumulate(counts, initial=0)
        wanted = float(total)
        if not isinstance(unfolding, MatMulUnfolding):
            products = HASTY_PRODUCTS if hasty else PRODUCTS
            per_input = HASTY_PATCHES if hasty else PATCHES_PER_INPUT
            wanted = max(per_input * fan_in, products / (groups * fan_in**2))
        if 4 * fan_in**2 > MOST_BYTES:  # then patches stand for H
            wanted = min(wanted, MOST_BYTES / (4 * fan_in))
        if wanted < total:
            self._shares = wanted / total

    def of(
        self, batch: int, pairs: Iterable[tuple[Float32, list[Float32]]]
    ) -> Iterator[tuple[Float32, list[Float32]]]:
        """Leave out patches of a batch.

        Args:
            batch: its number.
            pairs: its patches and outputs, see `Unfolding.pairs`.
        """
        if self._shares >= 1:
            yield from pairs
            return
        limit = np.uint64(self._shares * 2.0**64)
        start = self._first[batch]
        for columns, outputs in pairs:
            places = np.arange(start, start + columns.shape[2], dtype=np.uint64)
            start += columns.shape[2]
            kept = np.flatnonzero(places * _GOLDEN < limit)
            if kept.size:
                yield columns[:, :, kept], [output[:, :, kept] for output in outputs]
