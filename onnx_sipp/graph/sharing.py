"""Which layers multiply the same stored elements, and what else reads them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.graph.kinds import Layer
from onnx_sipp.graph.lowering.lowered import Lowered
from onnx_sipp.graph.lowering.reads import Read

__all__ = ["other_readers", "partial_overlaps", "positions"]

Ids = NDArray[np.int64]


def other_readers(
    model: Lowered, layers: Sequence[Layer]
) -> Iterator[tuple[Layer, dict[str, Read]]]:
    """Find layers whose weights anything but layers reads: their zeros would act elsewhere too.

    Args:
        model: that the layers belong to.
        layers: that shall be pruned.

    Yields:
        Such a layer, and what else reads elements of its weight, with a description for people.
    """
    covering: dict[tuple[str, str], list[Layer]] = defaultdict(list)
    for layer in layers:
        for key in _reads_of(model, layer):
            covering[key].append(layer)
    for layer in layers:
        found: dict[str, Read] = {}
        sites = model.plan.sites[layer.weight]
        for read in dict.fromkeys(r for site in sites for r in model.plan.reads_at.get(site, ())):
            users = covering.get((read.reader, read.name), [])
            if read.times == 1 and any(user.weight == read.name for user in users):
                continue
            if np.isin(_beyond(model, read, users), model.elements(layer.weight)).any():
                what = "the same node in another role" if users else read.what
                found.setdefault(what, read)
        if found:
            yield layer, found


def partial_overlaps(model: Lowered, layers: Sequence[Layer]) -> dict[str, str]:
    """Find layers that multiply some, but not all, of the elements that another one multiplies.

    Args:
        model: that the layers belong to.
        layers: that shall be pruned.

    Returns:
        By layer name, the name of such another layer.
    """
    by_site: dict[int, dict[str, Layer]] = defaultdict(dict)
    for layer in layers:
        for site in model.plan.sites[layer.weight]:
            by_site[site].setdefault(layer.weight, layer)
    overlapping: dict[str, str] = {}
    for users in by_site.values():
        for one, other in combinations(users, 2):
            if _overlap_in_part(model.elements(one), model.elements(other)):
                overlapping.setdefault(one, users[other].name)
                overlapping.setdefault(other, users[one].name)
    return {
        layer.name: overlapping[layer.weight] for layer in layers if layer.weight in overlapping
    }


def positions(wanted: Ids, among: Ids) -> Ids:
    """Where elements stand in another arrangement of the same elements.

    Args:
        wanted: in any shape.
        among: the same elements in another order.

    Returns:
        Places in the flattened ``among``, in the shape of ``wanted``.
    """
    order = np.argsort(among, axis=None)
    places = np.searchsorted(among.ravel()[order], wanted.ravel())
    return order[places].reshape(wanted.shape)


def _reads_of(model: Lowered, layer: Layer) -> list[tuple[str, str]]:
    """The reads that are the layer's own: of its node, and of the node it stands for."""
    keys = [(model.plan.labels[layer.index].reader, layer.weight)]
    virtual = model.plan.virtual.get(layer.weight)
    return keys if virtual is None else [*keys, (virtual.owner, virtual.operand)]


def _beyond(model: Lowered, read: Read, users: Sequence[Layer]) -> Ids:
    """The elements that a read is of, but for those that it multiplies as layers."""
    elements = model.elements(read.name).ravel()
    if read.times > 1 or not users:
        return elements
    return np.setdiff1d(elements, np.concatenate([model.elements(u.weight).ravel() for u in users]))


def _overlap_in_part(one: Ids, other: Ids) -> bool:
    common = np.intersect1d(one, other).size
    return common > 0 and not common == one.size == other.size
