"""What rules say of the layers of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.config.rules import Rule
from onnx_sipp.errors import UsageError
from onnx_sipp.graph.layers import Findings, Layer
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.weights import Weight

__all__ = ["WeightRules", "names_left_out", "rules_of"]


@dataclass(frozen=True)
class WeightRules:
    """What holds for single weights, by their index.

    Attributes:
        sparsity: share of zeros that they get.
        floors: share that they keep at least, where that is not the one of all.
        candidates: ways of choosing that are compared.
        masks: gives, for a weight and the number of a block of it, what stays; None where that is
            to be chosen.
    """

    sparsity: Mapping[int, float] = field(default_factory=dict)
    floors: Mapping[int, float] = field(default_factory=dict)
    candidates: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    masks: Callable[[int, int], NDArray[np.bool_]] | None = None

    def fixed(self, sizes: Sequence[int], part: float = 1.0) -> dict[int, int]:
        """How many units stay of weights with a sparsity of their own.

        Args:
            sizes: units of all weights.
            part: of the way there, as in rounds.
        """
        return {
            index: round(sizes[index] * (1 - share) ** part)
            for index, share in self.sparsity.items()
        }


def names_left_out(model: Lowered, findings: Findings, rules: Sequence[Rule]) -> list[str]:
    """Names of layers that rules exclude.

    Raises:
        UsageError: a rule is about no layer.
    """
    for rule in rules:
        if not any(_matches(rule, model, layer) for layer in findings.layers):
            names = ", ".join(layer.name for layer in findings.layers[:10])
            raise UsageError(
                f"the rule for {rule.selection} is about no prunable layer; there are {names}"
                f"{' and others' if len(findings.layers) > 10 else ''} (see `onnx-sipp inspect`)"
            )
    left_out = []
    for layer in findings.layers:
        said = [r.exclude for r in rules if r.exclude is not None and _matches(r, model, layer)]
        if said and said[-1]:
            left_out.append(layer.name)
    return left_out


def rules_of(model: Lowered, weights: Sequence[Weight], rules: Sequence[Rule]) -> WeightRules:
    """What rules say of each weight; later ones count more."""
    sparsity: dict[int, float] = {}
    floors: dict[int, float] = {}
    candidates: dict[int, tuple[str, ...]] = {}
    for rule in rules:
        for index, weight in enumerate(weights):
            if not any(_matches(rule, model, layer) for layer in weight.layers):
                continue
            if rule.sparsity is not None:
                sparsity[index] = rule.sparsity
            if rule.floor is not None:
                floors[index] = rule.floor
            if rule.candidates:
                candidates[index] = rule.candidates
    return WeightRules(sparsity, floors, candidates)


def _matches(rule: Rule, model: Lowered, layer: Layer) -> bool:
    weight = model.weight_name(layer.weight)
    return rule.matches(layer.name, layer.op_type, weight, layer.view.stored)
