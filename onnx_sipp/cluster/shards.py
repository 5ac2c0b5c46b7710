"""How work is parted, and how results are put together: the same whatever the number of workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = [
    "LARGEST",
    "PATCHES",
    "SHARDS",
    "is_light",
    "is_quick",
    "merged",
    "ranges_of",
    "shards_for",
]

T = TypeVar("T")

# Parts of a set of samples: at least so many, and of no more samples than these. More would part
# them more evenly, but each begins with a new session.
SHARDS, LARGEST = 8, 64
# Patches that a part has to have, so that statistics take longer than to begin and to merge them.
PATCHES = 128
# Weights from which on it takes longer to send a model and its statistics than to begin the work.
_MANY_WEIGHTS = 1 << 22
# Products of weights and inputs that statistics look at before workers have started and know of it.
_QUICK = 1 << 30
# Layers up to which a model is run once more for each of them.
_FEW_LAYERS = 16


def is_light(samples: int, patches: float, sizes: Sequence[int]) -> bool:
    """Whether statistics are measured sooner than the model and they have travelled.

    Args:
        samples: to measure on.
        patches: see `shards_for`.
        sizes: of the weights of all layers.
    """
    is_wide = sum(sizes) >= _MANY_WEIGHTS and len(sizes) <= _FEW_LAYERS
    return is_wide and samples * patches < SHARDS * PATCHES


def is_quick(samples: int, patches: float, sizes: Sequence[int]) -> bool:
    """Whether statistics are measured sooner than workers are there and have been told.

    Args:
        samples: to measure on.
        patches: see `shards_for`.
        sizes: of the weights of all layers.
    """
    return samples * patches * sum(sizes) < _QUICK


def shards_for(samples: int, patches: float) -> int:
    """How many parts statistics are measured in.

    Args:
        samples: of all parts.
        patches: of a sample, as many as a weight meets on average.
    """
    return max(2, min(_by_number(samples), round(samples * patches / PATCHES)))


def ranges_of(sizes: Sequence[int], shards: int | None = None) -> list[range]:
    """Part successive batches into ranges with about as many samples each.

    Args:
        sizes: samples of the batches.
        shards: most ranges, None to go by the number of samples alone.
    """
    shards = shards or _by_number(sum(sizes))
    ranges: list[range] = []
    total, start, done = sum(sizes), 0, 0
    for number, size in enumerate(sizes, 1):
        done += size
        if done * shards >= total * (len(ranges) + 1):
            ranges.append(range(start, number))
            start = number
    return ranges


def _by_number(samples: int) -> int:
    return max(SHARDS, -(-samples // LARGEST))


def merged(parts: Sequence[T], merge: Callable[[T, T], T]) -> T:
    """Put parts together as a tree: neighbours first, then neighbours of those.

    Args:
        parts: at least one, in their order.
        merge: of two neighbours.
    """
    level = list(parts)
    while len(level) > 1:
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [merge(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return level[0]
