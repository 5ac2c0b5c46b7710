"""Virtual weights: arrays made of stored elements, that can be written back element by element."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.graph.lowering.grid import Grid, encode_float

__all__ = ["Numbering", "Virtual"]

Array = NDArray[Any]
Ids = NDArray[np.int64]


class Numbering:
    """Numbers all stored elements of a model from 1 on, site after site; 0 is no stored element.

    Args:
        sizes: number of elements per site.

    Attributes:
        sizes: the same.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self._first = np.cumsum([1, *sizes], dtype=np.int64)

    def of(self, site: int) -> Ids:
        """Numbers of all elements of a site, in their order."""
        return np.arange(self._first[site], self._first[site + 1], dtype=np.int64)

    def first(self, site: int) -> int:
        """Number of the first element of a site."""
        return int(self._first[site])

    def split(self, ids: Ids) -> Iterator[tuple[int, Ids, Ids]]:
        """Sort elements by site.

        Yields:
            Site, places in the flattened ids, places in the flattened payload of the site.
        """
        flat = ids.ravel()
        sites = np.searchsorted(self._first, flat, side="right") - 1
        for site in np.unique(sites):
            places = np.flatnonzero(sites == site)
            yield int(site), places, flat[places] - self._first[site]


@dataclass(frozen=True)
class Virtual:
    """A weight as a layer multiplies it.

    Attributes:
        ids: which stored element each of its own is, in its shape; no two are the same.
        dtype: floating-point type of its values.
        grid: how real values are stored, None if as they are.
        way: operators between the stored constants and the node.
        owner: label of the node that it was made for.
        operand: name of the constant at that node.
    """

    ids: Ids
    dtype: np.dtype[Any]
    grid: Grid | None
    way: tuple[str, ...]
    owner: str
    operand: str

    def decode(self, numbering: Numbering, payload: Callable[[int], Array]) -> Array:
        """Its values, from the payloads of sites."""
        result = np.zeros(self.ids.size, self.dtype)
        for site, places, inside in numbering.split(self.ids):
            result[places] = self._decoded(payload(site).ravel()[inside], places)
        return result.reshape(self.ids.shape)

    def encode(
        self, values: Array, numbering: Numbering, payload: Callable[[int], Array]
    ) -> dict[int, Array]:
        """New payloads of its sites; elements whose value stays keep every bit.

        Args:
            values: new, in its shape.
            numbering: of the model's elements.
            payload: present elements of a site.
        """
        result = {}
        for site, places, inside in numbering.split(self.ids):
            before = payload(site)
            elements = before.ravel()[inside]
            wanted = values.ravel()[places]
            same = (wanted == self._decoded(elements, places)) & (wanted != 0)
            changed = before.flatten()
            changed[inside] = np.where(same, elements, self._encoded(wanted, places, before.dtype))
            result[site] = changed.reshape(before.shape)
        return result

    def _decoded(self, elements: Array, places: Ids) -> Array:
        if self.grid is not None:
            elements = self.grid.at(places).decode(elements)
        return elements.astype(self.dtype)

    def _encoded(self, values: Array, places: Ids, dtype: np.dtype[Any]) -> Array:
        if self.grid is not None:
            return self.grid.at(places).encode(values, dtype)
        return encode_float(values, dtype)
