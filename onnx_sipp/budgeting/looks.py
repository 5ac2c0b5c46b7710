"""What was seen of single layers of the dense model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnx_sipp.keeping.surveys import Surveys
from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.pruning.survey import Curve, Impact, Survey, curve_of

__all__ = ["LayerLook", "Looks"]


@dataclass(frozen=True)
class LayerLook:
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

    def take(self, look: LayerLook) -> None:
        """Take in what a look has told."""
        for way, survey in look.surveys.items():
            self.surveys[way][look.index] = survey
        if look.impact is not None:
            self.impacts[look.index] = look.impact

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
