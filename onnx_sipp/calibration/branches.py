"""Which branches of a model the samples take, and whether its loops can be watched."""

from __future__ import annotations

__all__ = ["lower_as_run"]

from typing import TYPE_CHECKING

from onnx_sipp.calibration.runner import Runner
from onnx_sipp.errors import SippError
from onnx_sipp.graph.lowering import Lowered, Watching, lower

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from onnx_sipp.calibration.specs import Feed
    from onnx_sipp.graph.model import Model


def lower_as_run(
    model: Model,
    feeds: Iterable[Feed],
    *,
    threads: int | None,
    providers: Sequence[str] | None,
    spare_biases: bool = False,
) -> Lowered:
    """Lower a model so that its layers can be observed on the samples.

    An If that takes the same branch for all samples is replaced by that branch. What conditions
    depend on is run; the branch that an If always takes may hold further Ifs, so the samples are
    run once per level. Layers inside other Ifs, Loops and Scans are watched in the way that works
    on all samples.

    Args:
        model: the original.
        feeds: all samples, calibration and held-out ones; gone through several times.
        threads: of onnxruntime.
        providers: of onnxruntime.
        spare_biases: see `lower`.

    Raises:
        SippError: the runtime refuses or fails.
    """
    always = _branches(model, feeds, threads=threads, providers=providers)
    watched: dict[str, Watching] = {}
    while True:
        lowered = lower(model, always, watched, spare_biases=spare_biases)
        taps = [lowered.plan.labels[place].name for place in sorted(lowered.plan.taps)]
        nodes = [lowered.proto.graph.node[place] for place in sorted(lowered.plan.taps)]
        outputs = [list(node.output) for node in nodes]
        everything = [name for names in outputs for name in names]
        if _works(lowered, everything, feeds, threads=threads, providers=providers):
            return lowered
        before = dict(watched)
        for label, names in zip(taps, outputs, strict=True):
            if not _works(lowered, names, feeds, threads=threads, providers=providers):
                watched[label] = "not" if watched.get(label) == "collected" else "collected"
        if watched == before:  # it is not the taps; whoever runs the model next will say what it is
            return lowered


def _branches(
    model: Model, feeds: Iterable[Feed], *, threads: int | None, providers: Sequence[str] | None
) -> dict[str, bool]:
    """By label of the If, what its condition always is; what varies is left out."""
    always: dict[str, bool] = {}
    varying: set[str] = set()
    while True:
        lowered = lower(model, always, rules={})
        asked = {k: name for k, name in lowered.plan.conditions.items() if k not in varying}
        if not asked:
            return always
        runner = Runner(lowered, list(asked.values()), threads=threads, providers=providers)
        seen: dict[str, set[bool]] = {label: set() for label in asked}
        for feed in feeds:
            values = runner.run(feed)
            for label, name in asked.items():
                seen[label].add(bool(values[name].item()))
        always |= {label: values.pop() for label, values in seen.items() if len(values) == 1}
        varying.update(seen.keys() - always.keys())


def _works(
    lowered: Lowered,
    taps: Sequence[str],
    feeds: Iterable[Feed],
    *,
    threads: int | None,
    providers: Sequence[str] | None,
) -> bool:
    """Whether tensors can be had of every sample."""
    if not taps:
        return True
    try:
        runner = Runner(lowered, taps, threads=threads, providers=providers)
        for feed in feeds:
            runner.run(feed)
    except SippError:
        return False
    return True
