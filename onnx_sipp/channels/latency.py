"""How long a model takes in onnxruntime, beside another one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from onnx_sipp.calibration.session import open_session, run_session
from onnx_sipp.calibration.specs import Feed
from onnx_sipp.graph.messages import serialized
from onnx_sipp.graph.model import Model

__all__ = ["latency_ratio"]

_WARM_UP = 3
_SECONDS = 1.0
_FEWEST, _MOST = 10, 400


def latency_ratio(
    dense: Model,
    cut: Model,
    feed: Feed,
    threads: int,
    seconds: float = _SECONDS,
    providers: Sequence[str] | None = None,
) -> float:
    """The time of one model over that of the other: the median over runs in turns.

    Args:
        dense: the one.
        cut: the other, whose time comes first in the ratio.
        feed: what both get.
        threads: of the runtime.
        seconds: to spend.
        providers: of the runtime.
    """
    runs = [_runner(model, feed, threads, providers) for model in (dense, cut)]
    for run in runs * _WARM_UP:
        run()
    times: list[list[float]] = [[], []]
    start = time.perf_counter()
    while len(times[0]) < _FEWEST or (
        len(times[0]) < _MOST and time.perf_counter() - start < seconds
    ):
        for run, own in zip(runs, times, strict=True):
            before = time.perf_counter()
            run()
            own.append(time.perf_counter() - before)
    return float(median(after / before for before, after in zip(*times, strict=True)))


def _runner(
    model: Model, feed: Feed, threads: int, providers: Sequence[str] | None
) -> Callable[[], Any]:
    session = open_session(
        serialized(model.inlined()), folder=None, threads=threads, providers=providers,
        libraries=model.libraries,
    )  # fmt: skip
    names = [value.name for value in model.proto.graph.output]
    return lambda: run_session(session, names, feed)
