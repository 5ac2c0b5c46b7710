"""Reading and writing of models, beside a plain copy and a plain write of as many bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
from make_large import chain, write_model
from numpy.typing import NDArray

from bench.parts import Part
from onnx_sipp.graph.model import Model
from onnx_sipp.slabs import ranges

__all__ = ["transfers"]

WIDEST = 2048
COPY, WRITE = "copy in memory", "plain write and fsync"


def transfers(folder: Path, size: int) -> list[Part]:
    """The parts of a run that move bytes.

    Args:
        folder: For the files, of which there are up to five of the size.
        size: Bytes of the weights, about.
    """
    width = min(WIDEST, max(16, isqrt(size // 4)))
    path = folder / "large.onnx"
    write_model(path, chain((width,), size), 0)
    model = Model.load(path)
    weights = [name for name, tensor in model.stored.items() if len(tensor.dims) == 2]
    values = [np.array(model.read(name)) for name in weights]
    return [*_reading(path, weights, values), *_writing(folder, model, weights, values)]


def _reading(path: Path, weights: list[str], values: list[NDArray[Any]]) -> Iterator[Part]:
    buffer = np.zeros_like(values[0])
    amount, size = _amount(values)

    def copy() -> None:
        for value in values:
            np.copyto(buffer, value)

    def mapped() -> None:
        model = Model.load(path)
        for name in weights:
            np.copyto(buffer, model.read(name))

    def slabs() -> None:
        model = Model.load(path)
        for name in weights:
            for rows in ranges(len(buffer), buffer.nbytes // len(buffer)):
                model.read_slab(name, 0, rows)

    yield Part(COPY, size, amount, "GB/s", copy, COPY)
    yield Part("reading weights, mapped", size, amount, "GB/s", mapped, COPY)
    yield Part("reading weights, some rows at a time", size, amount, "GB/s", slabs, COPY)


def _writing(
    folder: Path, model: Model, weights: list[str], values: list[NDArray[Any]]
) -> Iterator[Part]:
    amount, size = _amount(values)
    for name, value in zip(weights, values, strict=True):
        model.replace(name, value)
    whole = Model.load(model.inlined())

    def plain() -> None:
        # Beside the file of the round before, as it is done for a model: in place of a file that is
        # gone already, a new one takes a fraction of the time.
        with (folder / "beside").open("wb") as out:
            for value in values:
                out.write(value.data)
            out.flush()
            os.fsync(out.fileno())
        (folder / "beside").replace(folder / "plain")

    yield Part(WRITE, size, amount, "GB/s", plain, WRITE)
    for name, kind in ((", external data", model), (" of one file", whole)):
        target = folder / f"written{name[1]}.onnx"

        def save(kind: Model = kind, target: Path = target) -> None:
            kind.save(target)

        yield Part(f"writing a model{name}", size, amount, "GB/s", save, WRITE)


def _amount(values: list[NDArray[Any]]) -> tuple[float, str]:
    total = sum(value.nbytes for value in values)
    return float(total), f"{total / 1e6:,.0f} MB"
