"""Successive things put together: as many as fit into memory, or as make a long product."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from onnx_sipp.unfolding.base import Float32

__all__ = ["Piece", "fitting", "joined"]

T = TypeVar("T")

# Whether the samples are held out, patches ``[group, fan_in, n]``, and per layer its outputs.
Piece = tuple[bool, Float32, list[Float32]]
# Small pieces are joined up to this size.
_JOINED_BYTES = 4 << 20


def fitting(items: Iterable[T], size: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """Part items into groups that fit into memory, of one at least.

    Args:
        items: successive ones belong together.
        size: bytes of one.
        limit: bytes of a group.
    """
    group: list[T] = []
    for item in items:
        if group and sum(map(size, [*group, item])) > limit:
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Join small pieces of the same kind of sample: few long products take less time than many.

    Pieces of a kind come one after the other, so that none has to wait for long.
    """
    group: list[Piece] = []
    held = 0
    for piece in pieces:
        size = _bytes(piece)
        if group and (piece[0] != group[0][0] or held + size > _JOINED_BYTES):
            yield _one(group)
            group.clear()
            held = 0
        group.append(piece)
        held += size
    if group:
        yield _one(group)


def _bytes(piece: Piece) -> int:
    _, columns, outputs = piece
    return columns.nbytes + sum(output.nbytes for output in outputs)


def _one(group: Sequence[Piece]) -> Piece:
    if len(group) == 1:
        return group[0]
    columns = np.concatenate([columns for _, columns, _ in group], axis=2)
    targets = zip(*(outputs for _, _, outputs in group), strict=True)
    return group[0][0], columns, [np.concatenate(parts, axis=2) for parts in targets]
