"""Second-order statistics for refitting: H = E[a aᵀ], B = E[t aᵀ] and the means.

Sums are additive, so accumulators of two sets of samples merge into that of their union. A piece
of patches is multiplied in float32, the sum over pieces is float64 unless the input is very wide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.unfolding import Float32

__all__ = [
    "MOST_BYTES",
    "VERY_WIDE",
    "WIDE",
    "Cross",
    "Gram",
    "Moments",
    "Regression",
    "gram_bytes",
]

# From this fan-in on, products with H are float32: rounding is far below the statistics' noise.
WIDE = 256
# Of float32 sums over a piece of patches, relative; a variance below this share of E[a²] is none.
_ROUNDING = 1e-5

# From above this fan-in on, sums of products are float32, too: in memory they are large.
VERY_WIDE = 2048
# Of H of a group, or of the patches that stand for it.
MOST_BYTES = 256 << 20
# Of a large matrix, worked on at a time.
_ROWS = 1024

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


class Gram:
    """Σ a aᵀ and Σ a over patches; layers that share an input share one.

    Of a very wide input the patches themselves are kept, as long as they are few: they take less
    memory than H, and products with them less time.

    Args:
        groups: number of groups.
        fan_in: inputs per group.
    """

    def __init__(self, groups: int, fan_in: int) -> None:
        self._shape, self._is_wide = (groups, fan_in, fan_in), fan_in > VERY_WIDE
        self._columns: list[Float32] | None = [] if self._is_wide else None
        self._products: Float = np.zeros((0, 0, 0) if self._is_wide else self._shape)
        self._moments: dict[bool, Moments] = {}
        self.sums: Float64 = np.zeros((groups, fan_in))
        self.count = 0

    def update(self, columns: Float32) -> None:
        """Take in patches ``[group, fan_in, patches]``."""
        self.sums += columns.sum(axis=2, dtype=np.float64)
        self.count += columns.shape[2]
        if self._columns is None:
            self._add(columns)
        else:
            self._columns.append(columns.copy())
            self._sum_up_many()

    def merge(self, other: Gram) -> None:
        """Take in what another accumulator of the same input has seen."""
        self.sums += other.sums
        self.count += other.count
        if self._columns is not None and other._columns is not None:
            self._columns += other._columns
            self._sum_up_many()
        elif self._columns is None and other._columns is None:
            self._products += other._products
        else:
            own, self._columns = [*(self._columns or ()), *(other._columns or ())], None
            if not self._products.size:
                self._products = other._products.copy()
            for columns in own:
                self._add(columns)

    @property
    def products(self) -> Float:
        """Σ a aᵀ, ``[group, fan_in, fan_in]``."""
        if self._columns is None:
            return _mirrored(self._products) if self._is_wide else self._products
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
            self._columns, self._products = None, np.zeros(self._shape, np.float32)
            while columns:
                self._add(columns.pop(0))

    def _add(self, columns: Float32) -> None:
        for group, values in enumerate(columns):
            if not self._is_wide:
                self._products[group] += values @ values.T  # numpy takes the symmetric product here
                continue
            for a in range(0, len(values), _ROWS):  # the whole product would be large
                part = values[a : a + _ROWS] @ values[a:].T
                self._products[group, a : a + _ROWS, a:] += part

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
        return Moments(factor=factor)

    def _dense(self, centred: bool) -> Moments:
        count = max(1, self.count)
        other = self._moments.get(not centred)
        h: Float
        if not self._is_wide:
            h = self._products / count
        elif other is None:  # what follows needs the sums no more
            h = _mirrored(self._products)
            h /= np.float32(count)
        else:
            h = other.dense.copy()
            if not centred:
                _add_outer(h, self.sums / count, 1)
        if centred:
            power = np.einsum("gff->gf", h).copy()
            _add_outer(h, self.sums / count, -1)
            # An input that does not vary leaves rounding behind, of either sign.
            still = np.einsum("gff->gf", h) <= _ROUNDING * power
            for products, rows in zip(h, still, strict=True):
                products[rows] = products[:, rows] = 0
        return Moments(h)

    def _nothing(self) -> Float32:
        return np.zeros((*self._shape[:2], 0), np.float32)


def _mirrored(products: Float) -> Float:
    """Complete symmetric matrices of which what is right of the diagonal blocks is known."""
    for matrix in products:
        for a in range(0, len(matrix), _ROWS):
            matrix[a + _ROWS :, a : a + _ROWS] = matrix[a : a + _ROWS, a + _ROWS :].T
    return products


def _add_outer(h: Float, mean: Float64, sign: int) -> None:
    """Add ± m mᵀ in place, some rows at a time."""
    for matrix, m in zip(h, mean, strict=True):
        for a in range(0, len(m), _ROWS):
            matrix[a : a + _ROWS] += (sign * m[a : a + _ROWS, None] * m).astype(h.dtype)


@dataclass(frozen=True, eq=False)
class Moments:
    """H = E[a aᵀ] of every group, as a matrix or as a product.

    Attributes:
        matrix: ``[group, fan_in, fan_in]``; or
        factor: float32 ``[group, fan_in, n]``, whose product with its transpose it is; or
        isotropic: ``(groups, fan_in)`` of identities.
    """

    matrix: Float | None = None
    factor: Float32 | None = None
    isotropic: tuple[int, int] = (0, 0)

    @property
    def dense(self) -> Float:
        """``[group, fan_in, fan_in]``; made if need be."""
        if self.matrix is not None:
            return self.matrix
        if self.factor is not None:
            return self.factor @ self.factor.transpose(0, 2, 1)
        groups, fan_in = self.isotropic
        return np.repeat(np.eye(fan_in)[None], groups, axis=0)

    @cached_property
    def diagonal(self) -> Float64:
        """``[group, fan_in]``."""
        if self.isotropic != (0, 0):
            return np.ones(self.isotropic)
        result: Float64
        if self.factor is not None:
            result = np.einsum("gfn,gfn->gf", self.factor, self.factor, dtype=np.float64)
        else:
            result = np.einsum("gff->gf", self.dense).astype(np.float64)
        return result

    def with_means(self, means: Float64) -> Moments:
        """H + E[a] E[a]ᵀ, from a centred H and ``[group, fan_in]``."""
        if self.factor is not None:
            column = means[..., None].astype(self.factor.dtype)
            return Moments(factor=np.concatenate([self.factor, column], axis=2))
        matrix = self.dense.copy()
        _add_outer(matrix, means, 1)
        return Moments(matrix=matrix)

    def product(self, group: int, x: Float) -> Float:
        """X H of a group, in the type of ``x``: float32 or float64."""
        result: Float
        if self.factor is not None:
            result = (x @ self.factor[group]) @ self.factor[group].T
        elif self.isotropic != (0, 0):
            result = x.copy()
        else:
            result = x @ (self._narrow if x.dtype == np.float32 else self.dense)[group]
        return result

    @cached_property
    def _narrow(self) -> Float32:
        return self.dense.astype(np.float32, copy=False)


class Cross:
    """Σ t aᵀ, Σ t and Σ t² of a layer's targets with its inputs.

    Args:
        groups: number of groups.
        outs: neurons per group.
        fan_in: inputs per group.
    """

    def __init__(self, groups: int, outs: int, fan_in: int) -> None:
        dtype = np.float32 if fan_in > VERY_WIDE else np.float64
        self.products: Float = np.zeros((groups, outs, fan_in), dtype)
        self.sums: Float64 = np.zeros((groups, outs))
        self.squares: Float64 = np.zeros((groups, outs))

    def update(self, columns: Float32, targets: Float32) -> None:
        """Take in patches ``[group, fan_in, patches]`` and targets ``[group, out, patches]``."""
        self.products += targets @ columns.transpose(0, 2, 1)
        self.sums += targets.sum(axis=2, dtype=np.float64)
        self.squares += np.einsum("gop,gop->go", targets, targets, dtype=np.float64)

    def merge(self, other: Cross) -> None:
        """Take in what another accumulator of the same layer has seen."""
        self.products += other.products
        self.sums += other.sums
        self.squares += other.squares


@dataclass(frozen=True, eq=False)
class Regression:
    """Least squares of a layer: minimise E‖t − Ŵ a‖² over Ŵ, and a bias where there is room.

    Attributes:
        moments: H; centred if the bias takes the means.
        cross: B, ``[group, out, fan_in]``; likewise.
        power: E[t²] per neuron, ``[group, out]``; likewise.
        mean_input: E[a], ``[group, fan_in]``.
        mean_target: E[t], ``[group, out]``.
        centred: whether the bias takes the means.
        count: patches behind the means.
    """

    moments: Moments
    cross: Float
    power: Float64
    mean_input: Float64
    mean_target: Float64
    centred: bool
    count: int

    @classmethod
    def of(cls, gram: Gram, cross: Cross, *, centred: bool) -> Regression:
        """Turn sums into means.

        Args:
            gram: of the inputs.
            cross: of the targets, over the same patches.
            centred: whether the layer has a bias that can take the means.
        """
        mean_input = gram.sums / max(1, gram.count)
        return _regression(gram.moments(centred=centred), mean_input, gram.count, cross, centred)

    def with_targets(self, cross: Cross) -> Regression:
        """The same inputs with other targets, over the same patches."""
        return _regression(self.moments, self.mean_input, self.count, cross, self.centred)

    def uncentred(self) -> Regression:
        """The same problem for a layer whose bias cannot take the means."""
        if not self.centred:
            return self
        a, t = self.mean_input, self.mean_target
        return replace(
            self,
            moments=self.moments.with_means(a),
            cross=self.cross + (t[:, :, None] * a[:, None, :]).astype(self.cross.dtype),
            power=self.power + t**2,
            centred=False,
        )

    @classmethod
    def blind(cls, weight: NDArray[np.floating]) -> Regression:
        """What to go by where nothing was seen: inputs that are independent and equally large.

        Args:
            weight: ``[group, out, fan_in]``, whose outputs are the targets.
        """
        groups, outs, fan_in = weight.shape
        return cls(
            moments=Moments(isotropic=(groups, fan_in)),
            cross=weight.astype(np.float64),
            power=np.sum(weight.astype(np.float64) ** 2, axis=-1),
            mean_input=np.zeros((groups, fan_in)),
            mean_target=np.zeros((groups, outs)),
            centred=False,
            count=0,
        )

    @property
    def gram(self) -> Float:
        """H, ``[group, fan_in, fan_in]``."""
        return self.moments.dense

    @property
    def fan_in(self) -> int:
        """Inputs of every neuron."""
        return int(self.mean_input.shape[1])

    @property
    def is_very_wide(self) -> bool:
        """Whether H is so large that it should not be copied, let alone inverted."""
        return self.fan_in > VERY_WIDE

    @property
    def diagonal(self) -> Float64:
        """Of H, ``[group, fan_in]``."""
        return self.moments.diagonal

    def of_neurons(self, rows: NDArray[np.intp]) -> Regression:
        """The same problem for some neurons of every group only."""
        return replace(
            self,
            cross=self.cross[:, rows],
            power=self.power[:, rows],
            mean_target=self.mean_target[:, rows],
        )

    def errors(self, weight: NDArray[np.floating]) -> Float64:
        """E[(t − ŵᵀa − best bias)²] of each neuron, ``[group, out]``."""
        dtype = np.float32 if weight.shape[-1] >= WIDE else np.float64
        narrow: Float = weight.astype(dtype, copy=False)
        product = np.stack([self.moments.product(g, rows) for g, rows in enumerate(narrow)])
        quadratic = np.einsum("gof,gof->go", product, weight, dtype=np.float64)
        linear = np.einsum("gof,gof->go", self.cross, weight, dtype=np.float64)
        result: Float64 = np.maximum(quadratic - 2 * linear + self.power, 0)
        return result

    def errors_with(self, weight: NDArray[np.floating], bias: Float64) -> Float64:
        """E[(t − ŵᵀa − bias)²] of each neuron, ``[group, out]``, with a bias from elsewhere."""
        off = self.mean_target - bias - np.einsum("gof,gf->go", weight, self.mean_input)
        # Centred errors leave the mean out, the others have it in with the bias at 0.
        result: Float64
        if self.centred:
            result = self.errors(weight) + off**2
            return result
        result = np.maximum(self.errors(weight) - (off + bias) ** 2 + off**2, 0)
        return result

    def spread(self) -> Float64:
        """Variance of the target of each neuron, ``[group, out]``."""
        if self.centred:
            return self.power
        result: Float64 = np.maximum(self.power - self.mean_target**2, 0)
        return result

    def best_bias(self, weight: NDArray[np.floating]) -> Float64:
        """The bias that goes with a weight, ``[group, out]``: E[t] − ŵᵀE[a]; 0 if not centred."""
        if not self.centred:
            return np.zeros_like(self.mean_target)
        result: Float64 = self.mean_target - np.einsum("gof,gf->go", weight, self.mean_input)
        return result


def _regression(
    moments: Moments,
    mean_input: Float64,
    seen: int,
    cross: Cross,
    centred: bool,
) -> Regression:
    count = max(1, seen)
    mean_target = cross.sums / count
    b, power = cross.products / cross.products.dtype.type(count), cross.squares / count
    if centred:
        for group in range(len(b)):
            b[group] -= (mean_target[group, :, None] * mean_input[group]).astype(b.dtype)
        power -= mean_target**2
        b[np.broadcast_to(moments.diagonal[:, None, :] == 0, b.shape)] = 0
    return Regression(moments, b, np.maximum(power, 0), mean_input, mean_target, centred, seen)
