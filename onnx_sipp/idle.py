"""Weights on dead paths are taken out of the choice, and their budget is spent on others.

After a pass some neurons are read by no weight that is left, and some inputs have become constant.
What weighs them does nothing (see `graph.dead`): such weights can be zero for free, beyond those
that were asked for, so as many others can stay. The pass is repeated without them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.graph.dead import LayerFacts, dead_paths
from onnx_sipp.graph.flow import Flow
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.graph.order import reads as names_read
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.mixing import Choice
from onnx_sipp.weights import Weight

__all__ = ["Idle", "Respent", "Trial", "find_idle", "spend_again", "without"]

Mask = NDArray[np.bool_]

# Share of the kept weights below which what is idle is not worth another pass, and most passes.
_WORTH = 0.01
_REPEATS = 3


@dataclass(frozen=True)
class Idle:
    """What does nothing of one stored constant.

    Attributes:
        weights: ``[group, out, fan_in]``, that can be zero: the outputs of the model stay the same
            once a bias has taken up what constant inputs added.
        neurons: ``[group, out]``, that reach no output.
    """

    weights: Mask
    neurons: Mask


def find_idle(
    model: Lowered,
    flow: Flow,
    weights: Sequence[Weight],
    biased: Collection[str],
    tied: Collection[str] = (),
) -> list[Idle]:
    """Find what does nothing in a model as its weights are now.

    Args:
        model: is not changed.
        flow: of its main graph.
        weights: that are pruned.
        biased: names of layers that have a bias which can take up a constant.
        tied: names of layers whose weights anything but layers reads: it may need any of them.
    """
    layers = [layer for weight in weights for layer in weight.layers]
    folds = {
        weight.layers[0].index: weight.layers[0].name in biased
        for weight in weights
        if len(weight.layers) == 1 and weight.layers[0].name not in tied
    }
    # Branches that are never taken on the samples may be on others.
    unseen = [name for node, _ in model.plan.left_out for name in names_read(node)]
    found = dead_paths(model, flow, layers, folds, unseen)
    facts = dict(zip((layer.name for layer in layers), found, strict=True))
    return [
        _nothing(weight)
        if any(layer.name in tied for layer in weight.layers)
        else _idle(weight, [facts[layer.name] for layer in weight.layers])
        for weight in weights
    ]


def _nothing(weight: Weight) -> Idle:
    return Idle(
        np.zeros(weight.matrix.shape, np.bool_), np.zeros(weight.matrix.shape[:2], np.bool_)
    )


def _idle(weight: Weight, facts: Sequence[LayerFacts]) -> Idle:
    """A weight is idle if it is in all layers that share it."""
    weights = np.ones(weight.matrix.shape, np.bool_)
    neurons = np.ones(weight.matrix.shape[:2], np.bool_)
    for layer, found in zip(weight.layers, facts, strict=True):
        inputs = found.unread_inputs | found.removable
        own = found.unread[..., None] | inputs[:, None, :]
        weights &= weight.from_layer(layer, own.astype(np.float32)) != 0
        neurons &= found.unread if weight.seen_alike(layer) else False
    return Idle(weights, neurons)


def without(evidence: Sequence[Evidence], idle: Sequence[Idle], keep: int) -> Sequence[Evidence]:
    """Evidence in which idle weights are zero, so that none of them is chosen.

    Args:
        evidence: per weight.
        idle: per weight.
        keep: how many weights are to stay; if fewer than that were left to choose from, the
            evidence is returned as it is.
    """
    cleared = [
        replace(
            found,
            weight=np.where(dead.weights, 0, found.weight),
            gain=np.where(dead.neurons, 0, found.gain),
        )
        for found, dead in zip(evidence, idle, strict=True)
    ]
    return cleared if sum(np.count_nonzero(found.weight) for found in cleared) >= keep else evidence


@dataclass(frozen=True)
class Trial:
    """A pass over all weights, which can be made again from other evidence.

    Attributes:
        model: that came of it.
        choices: per weight.
        before: evidence per weight that it started from.
        again: makes a pass of the same kind.
    """

    model: Lowered
    choices: Sequence[Choice]
    before: Sequence[Evidence]
    again: Callable[[Sequence[Evidence]], Trial]


@dataclass(frozen=True)
class Respent:
    """What became of the weights on dead paths.

    Attributes:
        weights: per weight tensor, how many were freed; as many others took their places.
        neurons: per weight tensor, ``[group, out]``: neurons that reach no output and were left
            without weights.
        errors: relative error of the model's outputs before, and after every pass that was used.
    """

    weights: Sequence[int] = ()
    neurons: Sequence[Mask] = ()
    errors: Sequence[float] = ()


def spend_again(
    trial: Trial,
    keep: int,
    find: Callable[[Lowered], Sequence[Idle]],
    error: Callable[[Lowered], float],
) -> tuple[Trial, Respent]:
    """Repeat a pass without the weights that did nothing, as long as that lowers the error.

    Args:
        trial: the pass.
        keep: how many weights stay.
        find: tells the idle weights of a model.
        error: relative squared error of a model's outputs.

    Returns:
        The best pass, with the same number of weights, and what was freed on the way there.
    """
    freed, errors = [0] * len(trial.choices), [error(trial.model)]
    for _ in range(_REPEATS):
        idle = find(trial.model)
        wasted = [
            int(np.count_nonzero(choice.kept & found.weights))
            for choice, found in zip(trial.choices, idle, strict=True)
        ]
        if sum(wasted) <= _WORTH * keep:
            break
        again = trial.again(without(trial.before, idle, keep))
        now = error(again.model)
        if now >= errors[-1]:
            break
        trial = again
        errors.append(now)
        freed = [old + new for old, new in zip(freed, wasted, strict=True)]
    dead = [(found.gain == 0) & ~found.weight.any(axis=-1) for found in trial.before]
    return trial, Respent(freed, dead, [value**0.5 for value in errors])
