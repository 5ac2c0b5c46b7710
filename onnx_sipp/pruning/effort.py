"""How much is tried on a layer: the less, the more a product of its weights with H costs."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FULL", "LEAST", "MODERATE", "Effort", "effort_for", "trial_work"]

# Multiplications of one product, from which on less is tried.
MODERATE_PRODUCT, LEAST_PRODUCT = 2.5e8, 2e9


@dataclass(frozen=True)
class Effort:
    """How much is tried.

    Attributes:
        schedule: of the gradual order; see `removal.gradual_mask`.
        stage_steps: conjugate gradient steps in each of these stages.
        screening_steps: the same to compare candidates and dampings, and for error curves.
        steps: the same of the refit in the end. To stop early regularises as damping does.
        turns: at most so often targets behind a cut are renewed.
        neurons: so many stand for all where a layer is only to be judged.
        inverts: whether H may be inverted, which costs as much as the refit of a large layer.
        judges_all: whether errors are measured at all neurons.
    """

    schedule: tuple[float, ...]
    stage_steps: int
    screening_steps: int
    steps: int
    turns: int
    neurons: int
    inverts: bool = True
    judges_all: bool = True

    @property
    def products(self) -> int:
        """Products with H that it takes to choose and refit a layer."""
        return (len(self.schedule) - 1) * (self.stage_steps + 1) + self.steps + 1


FULL = Effort((0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1, 1), 8, 8, 20, 3, 128)
MODERATE = Effort((0.4, 0.8, 1, 1), 3, 4, 8, 3, 128)
# Without the ramp the first stage drops more than it should, which the second mends for the most
# part.
LEAST = Effort((1, 1), 1, 3, 3, 1, 64, inverts=False, judges_all=False)


def effort_for(work: float, *, hasty: bool = False) -> Effort:
    """How much is tried on a layer.

    Args:
        work: multiplications of one product of its weights with H.
        hasty: whether it is only to compare budgets: then less is.
    """
    levels = [FULL, MODERATE, LEAST, LEAST]
    level = (work > MODERATE_PRODUCT) + (work > LEAST_PRODUCT)
    return levels[level + hasty]


def trial_work(work: float) -> float:
    """Multiplications that it takes to try out budgets on a layer.

    It is pruned alone in two ways, and in haste by three budgets.

    Args:
        work: multiplications of one product of its weights with H.
    """
    alone = effort_for(work).screening_steps + 1
    return work * (2 * alone + 3 * effort_for(work, hasty=True).products)
