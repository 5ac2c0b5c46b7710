"""Second-order statistics for refitting: H = E[a aᵀ], and sums for B = E[t aᵀ] and the means.

Sums are additive, so accumulators of two sets of samples merge into that of their union. A piece
of patches is multiplied in float32, the sum over pieces is float64 unless the input is very wide.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.statistics.input_moments import ROWS, Moments, add_outer
from onnx_sipp.statistics.multiplying import NUMPY, Multiplier
from onnx_sipp.statistics.sending import SentWithoutZeros
from onnx_sipp.statistics.totals import square_sums, sums
from onnx_sipp.unfolding.base import Float32

__all__ = [
    "MOST_BYTES",
    "VERY_WIDE",
    "WIDE",
    "Gram",
    "gram_bytes",
    "suited",
]

# From this fan-in on, products with H are float32: rounding is far below the statistics' noise.
WIDE = 256
# Of float32 sums over a piece of patches, relative; a variance below this share of E[a²] is none.
_ROUNDING = 1e-5

# From above this fan-in on, sums of products are float32, too: in memory they are large.
VERY_WIDE = 2048
# Of H of a group, or of the patches that stand for it.
MOST_BYTES = 256 << 20
# A matrix of no more bytes may be copied.
_COPIED = 8 << 20

Float = NDArray[np.floating]
Float64 = NDArray[np.float64]


def gram_bytes(fan_in: int, patches: int) -> int:
    """Bytes of what least squares hold of a very wide input; 0 for others, where it is little.

    Args:
        fan_in: number of inputs.
        patches: of calibration and held-out samples together.
    """
    if fan_in <= VERY_WIDE:
        return 0
    if 2 * patches <= fan_in or 4 * fan_in**2 > MOST_BYTES:
        return min(4 * fan_in * patches, MOST_BYTES)
    return 2 * 4 * fan_in**2


def suited(multiplier: Multiplier, fan_in: int) -> Multiplier:
    """A multiplier for inputs so many that products are float32; numpy for fewer."""
    return multiplier if fan_in >= WIDE else NUMPY


class Gram(SentWithoutZeros):
    """Σ a aᵀ and Σ a over patches; layers that share an input share one.

    Of a wide input the patches themselves are kept, as long as they are few: they take less memory
    than H, and products with them less time.

    Args:
        groups: number of groups.
        fan_in: inputs per group.
        multiplier: of wide inputs.
    """

    def __init__(self, groups: int, fan_in: int, multiplier: Multiplier = NUMPY) -> None:
        self._multiplier = suited(multiplier, fan_in)
        self._shape, self._is_very_wide = (groups, fan_in, fan_in), fan_in > VERY_WIDE
        self._columns: list[Float32] | None = [] if fan_in >= WIDE else None
        self._products: Float = self._empty()
        self._moments: dict[bool, Moments] = {}
        self.sums: Float64 = np.zeros((groups, fan_in))
        self.count = 0

    def _empty(self) -> Float64:
        return np.zeros(self._shape if self._columns is None else (0, 0, 0))

    def update(self, columns: Float32) -> None:
        """Take in patches ``[group, fan_in, patches]``."""
        self.sums += sums(columns)
        self.count += columns.shape[2]
        if self._columns is None:
            self._add(columns)
        else:
            self._columns.append(columns.copy())
            self._sum_up_many()

    def merge(self, other: Gram) -> None:
        """Take in what another accumulator of the same input has seen."""
        if not other.count:
            return
        self.sums += other.sums
        self.count += other.count
        if self._columns is not None and other._columns is not None:
            self._columns += other._columns
            self._sum_up_many()
        elif self._columns is None and other._columns is None:
            with np.errstate(over="ignore", invalid="ignore"):  # see `largest`
                self._products += other._products
        else:
            own, self._columns = [*(self._columns or ()), *(other._columns or ())], None
            if not self._products.size:
                self._products = other._products.copy()
            for columns in own:
                self._add(columns)

    @property
    def largest(self) -> float:
        """The largest mean square of an input; infinite, or NaN, where float32 has no room for it.

        No product of two inputs is larger. Sums that became moments do not tell it any more.
        """
        diagonal: Float64
        if self._columns is None:
            diagonal = np.einsum("gff->gf", self._products)
        else:
            diagonal = np.zeros(self._shape[:2])
            for part in self._columns:
                diagonal += square_sums(part)
        return float(diagonal.max(initial=0.0)) / max(1, self.count)

    @property
    def products(self) -> Float:
        """Σ a aᵀ, ``[group, fan_in, fan_in]``."""
        if self._columns is None:
            return _mirrored(self._products) if self._is_very_wide else self._products
        values = np.concatenate(self._columns or [self._nothing()], axis=2)
        return values @ values.transpose(0, 2, 1)

    def moments(self, *, centred: bool) -> Moments:
        """H, of the inputs or of their deviations from the mean; no patch may come any more."""
        if centred not in self._moments:
            self._moments[centred] = self._factored(centred) or self._dense(centred)
        return self._moments[centred]

    def _sum_up_many(self) -> None:
        """Go over to Σ a aᵀ once the patches are more than half as many as the inputs."""
        columns, fan_in = self._columns or [], self._shape[1]
        many = 2 * sum(part.shape[2] for part in columns) > fan_in
        if many and 4 * fan_in**2 <= MOST_BYTES:
            kind = np.float32 if self._is_very_wide else np.float64
            self._columns, self._products = None, np.zeros(self._shape, kind)
            while columns:
                self._add(columns.pop(0))

    def _add(self, columns: Float32) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # see `largest`
            self._add_products(columns)

    def _add_products(self, columns: Float32) -> None:
        for group, values in enumerate(columns):
            if not self._is_very_wide:
                held = self._multiplier.hold(values)  # numpy takes the symmetric product here
                self._products[group] += held.times_transposed(values)
                continue
            for a in range(0, len(values), ROWS):  # the whole product would be large
                held = self._multiplier.hold(values[a:])
                part = held.times_transposed(values[a : a + ROWS])
                self._products[group, a : a + ROWS, a:] += part

    def _factored(self, centred: bool) -> Moments | None:
        if self._columns is None:
            return None
        count = max(1, self.count)
        factor = np.concatenate(self._columns or [self._nothing()], axis=2)
        power = np.einsum("gfn,gfn->gf", factor, factor, dtype=np.float64)
        if centred:
            factor -= (self.sums / count)[:, :, None].astype(np.float32)
            spread = np.einsum("gfn,gfn->gf", factor, factor, dtype=np.float64)
            factor *= (spread > _ROUNDING * power)[:, :, None]
        factor /= np.float32(np.sqrt(count))
        return Moments(factor=factor, multiplier=self._multiplier)

    def _dense(self, centred: bool) -> Moments:
        count = max(1, self.count)
        other = self._moments.get(not centred)
        h: Float
        if self._products.nbytes <= _COPIED:
            h = self._products / count
        elif other is None:  # what follows needs the sums no more
            h = _mirrored(self._products) if self._is_very_wide else self._products
            h /= h.dtype.type(count)
        else:
            h = other.dense.copy()
            if not centred:
                add_outer(h, self.sums / count, 1)
        if centred:
            power = np.einsum("gff->gf", h).copy()
            add_outer(h, self.sums / count, -1)
            # An input that does not vary leaves rounding behind, of either sign.
            still = np.einsum("gff->gf", h) <= _ROUNDING * power
            for products, rows in zip(h, still, strict=True):
                products[rows] = products[:, rows] = 0
        return Moments(h, multiplier=self._multiplier)

    def _nothing(self) -> Float32:
        return np.zeros((*self._shape[:2], 0), np.float32)


def _mirrored(products: Float) -> Float:
    """Complete symmetric matrices of which what is right of the diagonal blocks is known."""
    for matrix in products:
        for a in range(0, len(matrix), ROWS):
            matrix[a + ROWS :, a : a + ROWS] = matrix[a : a + ROWS, a + ROWS :].T
    return products
