"""How much memory the process takes, and how work is parted to stay within a limit."""

from __future__ import annotations

import re
import resource
import sys
from dataclasses import dataclass

from onnx_sipp.store import DEFAULT_LIMIT as STORE_LIMIT

__all__ = [
    "DEFAULT_LIMIT",
    "KEPT_BYTES",
    "Plan",
    "excess",
    "peak_memory",
    "read_size",
    "refit_bytes",
]

# Of all that the process takes.
DEFAULT_LIMIT = 5 << 28
# Of sensitivities, and of given masks, in memory; the others are in files.
KEPT_BYTES = 32 << 20
# The interpreter, numpy, onnxruntime and the compiler, and what is held whatever the block.
_BASE = 360 << 20
# Bytes per weight of a block while it is refitted; and the fewest and most weights in a block. A
# larger one would not be faster.
_BYTES_PER_WEIGHT = 96
_SMALLEST, _LARGEST = 1 << 18, 1 << 22
# Most bytes of activations that wait in memory for the next layer.
_MANY_LIVE = 384 << 20
# What layers leave of the limit is free for that, but for so much: what they take is known roughly.
_SPARE = 256 << 20
# What a run takes however small its blocks; and how far above the limit is told.
_LEAST, _TOLERANCE = 460 << 20, 1.1


@dataclass(frozen=True)
class Plan:
    """How work is parted.

    Attributes:
        block: weights of a layer that are worked on at a time; a power of two. Layers with more are
            pruned block by block.
        sums: bytes of what is gathered in one pass over the samples.
        live: bytes of activations that may wait in memory for the next layer.
    """

    block: int = _LARGEST
    sums: int = 192 << 20
    live: int = STORE_LIMIT

    @classmethod
    def within(cls, limit: int, inputs: int = 0, largest: int = _LARGEST) -> Plan:
        """Plan for a limit of the memory of the whole process, as far as it can be kept.

        Args:
            limit: in bytes.
            inputs: bytes of what has to be held of the inputs of a layer, whatever the block.
            largest: weights of the largest layer.
        """
        room = max(0, limit - _BASE - inputs)
        block = min(max(room // _BYTES_PER_WEIGHT, _SMALLEST), _LARGEST)
        block = 1 << (block.bit_length() - 1)
        sums = min(max(room // 2, 1 << 22), cls.sums)
        left = room - sums - refit_bytes(min(block, largest)) - _SPARE
        return cls(block, sums, min(max(left, STORE_LIMIT), _MANY_LIVE))


def refit_bytes(weights: int) -> int:
    """About how many bytes it takes to refit so many weights, without the sums of their inputs."""
    return _BYTES_PER_WEIGHT * weights


def peak_memory() -> int:
    """The most memory that the process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def excess(limit: int, before: int) -> list[str]:
    """Say so if the process has taken clearly more memory than it may.

    Args:
        limit: in bytes.
        before: the most that it had taken before the work in question.
    """
    peak = peak_memory()
    if peak <= max(before, _TOLERANCE * limit):
        return []
    told = (
        f"the process took {peak >> 20} MiB at its peak, more than --memory-limit "
        f"({limit >> 20} MiB): about {_LEAST >> 20} MiB are needed in any case, and models with "
        "states, with layers in the bodies of If, Loop or Scan, or with large activations need "
        "more"
    )
    return [told]


def read_size(value: str) -> int | None:
    """A number of bytes, from ``512MB``, ``2GB``, ``1048576``; None if it is not of that form."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)I?B?", value.strip().upper())
    if found is None:
        return None
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2] or " "))
