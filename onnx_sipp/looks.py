"""Looks at single layers of the dense model: error curves, and what pruning one alone does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnx_sipp.alone import better_way, error_alone
from onnx_sipp.keeping.surveys import Surveys
from onnx_sipp.options import Options
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.survey import Curve, Impact, Survey, curve_of, surveys_of
from onnx_sipp.sequential import Refitter
from onnx_sipp.weights import Weight

__all__ = ["Looked", "Looker", "Looks"]


@dataclass(frozen=True)
class Looked:
    """What a look at one weight has told.

    Attributes:
        index: of the weight.
        impact: None if it is not known.
        surveys: by way, its curve.
        shared: evidence to be used again; None where no other layer shares the weight.
    """

    index: int
    impact: Impact | None
    surveys: Mapping[bool, Survey]
    shared: Evidence | None


@dataclass(frozen=True)
class Looks:
    """What was seen so far.

    Attributes:
        surveys: curves to go by: by whether every neuron keeps the same share, and by the index of
            the weight.
        first: those of the dense model, nothing left out.
        impacts: by the index of the weight.
    """

    surveys: Surveys
    first: Surveys
    impacts: dict[int, Impact]

    @classmethod
    def of(
        cls, surveys: Surveys | None = None, impacts: Mapping[int, Impact] | None = None
    ) -> Looks:
        """What is known of the dense model; nothing if none is given."""
        first: Surveys = surveys or {False: {}, True: {}}
        return cls(first, first, dict(impacts or {}))

    def take(self, looked: Looked) -> None:
        """Take in what a look has told."""
        for way, survey in looked.surveys.items():
            self.surveys[way][looked.index] = survey
        if looked.impact is not None:
            self.impacts[looked.index] = looked.impact

    def anew(self) -> Looks:
        """The same, in which curves may be replaced by those of a model with weights left out."""
        return replace(self, surveys={way: dict(found) for way, found in self.first.items()})

    def plans(self, allocation: str) -> dict[str, list[Impact]]:
        """Budgets to try, by name, each with the impacts of the weights; a single one has none.

        Args:
            allocation: of the options.
        """
        impacts = [self.impacts[index] for index in range(len(self.impacts))]
        if allocation != "auto" or not impacts:
            return {"": impacts}
        return {
            "error": [],
            "impact": impacts,
            "mild-impact": [impact.mild() for impact in impacts],
        }

    def curves(self, impacts: Sequence[Impact], count: int) -> list[Curve | None]:
        """Per weight, the curve that the first round goes by; empty if there are none.

        Args:
            impacts: of a budget.
            count: of weights.
        """
        ways = [impact.by_neuron for impact in impacts] or [False] * count
        found = [self.first[way].get(index) for index, way in enumerate(ways)]
        if not any(found):
            return []
        return [None if survey is None else curve_of(survey) for survey in found]


@dataclass(frozen=True)
class Looker:
    """Looks at layers of the dense model.

    Attributes:
        refitter: of the model.
        weights: of the layers.
        options: of the run.
        share: of its weights that a layer keeps where it is pruned alone.
        by_error: whether budgets go by error curves.
    """

    refitter: Refitter
    weights: Sequence[Weight]
    options: Options
    share: float
    by_error: bool

    def look(self, index: int, evidence: Evidence, room: int, impact: Impact | None) -> Looked:
        """Follow the error of a layer as its weights are removed, as far as budgets may need it.

        Args:
            index: of the weight.
            evidence: of it.
            room: how many of its units can be kept.
            impact: of it, if it is known.
        """
        shared = evidence if len(self.weights[index].layers) > 1 else None
        found: Mapping[bool, Survey] = {}
        if self.by_error and evidence.is_seen:
            ways = (False, True) if impact is not None and impact.by_neuron else (False,)
            units, threads = self.weights[index].units, self.options.thread_count
            found = surveys_of(evidence, ways, units, room, threads)
        return Looked(index, impact, found, shared)

    def error_alone(self, index: int, evidence: Evidence, *, by_neuron: bool) -> float:
        """Prune a layer alone, and look at the outputs of the model; see `alone.error_alone`."""
        if not evidence.is_seen:
            return 0.0
        keep = min(round(self.share * evidence.units), evidence.alive)
        threads = self.options.thread_count
        return error_alone(self.refitter, index, evidence, keep, threads, by_neuron=by_neuron)

    def impact(self, errors: Mapping[bool, float]) -> Impact:
        """What pruning a layer alone does, by the better way.

        Args:
            errors: see `error_alone`, by way.
        """
        error, by_neuron = better_way(errors)
        return Impact(by_neuron, self.share, error)
