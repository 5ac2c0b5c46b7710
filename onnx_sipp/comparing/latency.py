"""Time per run of two models that take turns, so that what else the machine does hits both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from onnx_sipp.calibration.batching import Batching, joined
from onnx_sipp.calibration.session import open_session, run_session
from onnx_sipp.calibration.specs import Feed, InputSpec
from onnx_sipp.comparing.spread import median_and_spread
from onnx_sipp.report.comparison import Latency

__all__ = ["batched", "measure_latency"]

# A timing comprises as many runs as take this long: clocks and caches need some time.
_SHORTEST = 3e-4
# Two sessions on one and the same model may differ in speed, by where their memory and threads lie.
# So they are opened anew until the ratio's standard error is small enough, or for so many times the
# seconds that were asked for.
_OPENINGS = 4
_FEWEST_TURNS = 6  # per opening
_PRECISION = 0.007
_PATIENCE = 8
Turns = list[tuple[float, float]]
Clock = Callable[[], float]


def batched(
    feeds: Sequence[Feed], inputs: Sequence[InputSpec], sizes: Sequence[int]
) -> tuple[dict[int, Feed], list[int]]:
    """Join samples into batches.

    Args:
        feeds: the samples; they are repeated where a batch needs more.
        inputs: what the model takes.
        sizes: of the batches.

    Returns:
        A feed for every size that can be made, and the other sizes. Where the model fixes its
        batch, the one size there is, is that.
    """
    fixed = {spec.fixed_batch for spec in inputs} - {None}
    if len(fixed) == 1 and all(spec.fixed_batch is not None for spec in inputs if spec.shape):
        (only,) = fixed
        assert only is not None
        return {only: feeds[0]}, [size for size in sizes if size != only]
    made: dict[int, Feed] = {}
    for size in sizes:
        count, feed = next(iter(joined(cycle(feeds), Batching(size), inputs)))
        if count == size:
            made[size] = feed
    return made, [size for size in sizes if size not in made]


def measure_latency(
    paths: tuple[Path, Path],
    feeds: dict[int, Feed],
    threads: Sequence[int],
    seconds: float,
    *,
    providers: Sequence[str] | None = None,
    libraries: Sequence[Path] = (),
) -> Iterator[Latency]:
    """Measure two models.

    Args:
        paths: of the models.
        feeds: by batch size.
        threads: numbers of threads to measure with.
        seconds: that each entry takes, or several times that where the machine is busy.
        providers: of the runtime, None for the CPU.
        libraries: with operators that the runtime must load.

    Yields:
        An entry per number of threads and batch size.

    Raises:
        SippError: a model cannot be loaded, or fails on a feed.
    """
    for count in threads:
        clock = _clock(count, providers)
        found: dict[int, list[Turns]] = {size: [] for size in feeds}
        deadline = time.perf_counter() + _PATIENCE * seconds * len(feeds)
        while wanted := [size for size in feeds if not _is_enough(found[size], deadline)]:
            order = (0, 1) if len(found[wanted[0]]) % 2 == 0 else (1, 0)
            opened = {
                index: open_session(
                    paths[index],
                    folder=None,
                    threads=count,
                    providers=providers,
                    libraries=libraries,
                )
                for index in order
            }
            for size in wanted:
                turns = _turns(opened[0], opened[1], feeds[size], seconds / _OPENINGS, clock)
                found[size].append(turns)
        for size, openings in found.items():
            yield _summary(size, count, openings, clock is time.thread_time)


def _is_enough(openings: list[Turns], deadline: float) -> bool:
    """Whether the ratio is known well, or is not to be known in reasonable time."""
    if len(openings) < _OPENINGS:
        return False
    return _ratio(openings)[1] <= _PRECISION or time.perf_counter() > deadline


def _clock(threads: int, providers: Sequence[str] | None) -> Clock:
    """What time is told by.

    On one thread of the CPU that is the time it worked: what other programs took says nothing of
    the models.
    """
    on_cpu = set(providers or ["CPUExecutionProvider"]) == {"CPUExecutionProvider"}
    exact = time.get_clock_info("thread_time").resolution < _SHORTEST / 100
    return time.thread_time if threads == 1 and on_cpu and exact else time.perf_counter


def _turns(dense: Any, pruned: Any, feed: Feed, seconds: float, clock: Clock) -> Turns:
    """Seconds per run of both, turn by turn; who is first alternates."""
    for session in (dense, pruned):
        _timed(session, feed, 1, clock)
    runs = max(1, round(_SHORTEST / _timed(dense, feed, 1, clock)))
    for session in (dense, pruned):
        _timed(session, feed, runs, clock)
    found: Turns = []
    deadline = time.perf_counter() + seconds
    while len(found) < _FEWEST_TURNS or time.perf_counter() < deadline:
        if len(found) % 2 == 0:
            first = _timed(dense, feed, runs, clock)
            found.append((first, _timed(pruned, feed, runs, clock)))
        else:
            second = _timed(pruned, feed, runs, clock)
            found.append((_timed(dense, feed, runs, clock), second))
    return found


def _timed(session: Any, feed: Feed, runs: int, clock: Clock) -> float:
    start = clock()
    for _ in range(runs):
        run_session(session, None, feed)
    return (clock() - start) / runs


def _ratio(openings: list[Turns]) -> tuple[float, float]:
    """Mean of the openings' median ratios, and its standard error."""
    medians = [median_and_spread([b / a for a, b in turns])[0] for turns in openings]
    return fmean(medians), stdev(medians) / sqrt(len(medians))


def _summary(batch: int, threads: int, openings: list[Turns], working: bool) -> Latency:
    turns = [pair for opening in openings for pair in opening]
    dense = median_and_spread([first for first, _ in turns])
    pruned = median_and_spread([second for _, second in turns])
    return Latency(batch, threads, *dense, *pruned, *_ratio(openings), len(turns), working)
