"""What each group loses when some of its units go, measured group by group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.channels.plan import Coupling
from onnx_sipp.progress import Progress
from onnx_sipp.pruning.compensation import refit
from onnx_sipp.pruning.elimination import Order, Reader, eliminated, ranked_by_sensitivity
from onnx_sipp.pruning.evidence import Evidence, damping_for
from onnx_sipp.pruning.mixing import Choice
from onnx_sipp.pruning.unit_budget import Curve
from onnx_sipp.refitting.refitter import Refitter

__all__ = ["Found", "best_units", "survey"]

# Conjugate gradient steps of a refit that only compares.
_STEPS = 12
_TINY = 1e-12


@dataclass(frozen=True)
class Found:
    """What is known of a group.

    Attributes:
        orders: in which its units may go, by the name of the way.
        local: the readers' own errors by count of units.
        measured: the outputs' errors by count of units.
    """

    orders: Mapping[str, Order]
    local: Curve
    measured: Curve


def survey(
    refitter: Refitter,
    coupling: Coupling,
    align: int | None,
    threads: int,
    progress: Progress,
) -> dict[int, Found]:
    """Look at every group that may lose units, as if the rest of the model stayed dense.

    Args:
        refitter: of the dense model.
        coupling: of its groups.
        align: see `Group.counts`.
        threads: of the refits.
        progress: told after every stage.
    """
    waiting = {number: set(coupling.readers[number]) for number in coupling.free}
    uses = Counter(index for number in waiting for index in set(coupling.readers[number]))
    held: dict[int, Evidence] = {}
    found: dict[int, Found] = {}

    def look(index: int, evidence: Evidence) -> None:
        if not uses[index]:
            return
        held[index] = evidence
        for number in [n for n, missing in waiting.items() if index in missing]:
            waiting[number].discard(index)
            if not waiting[number]:
                del waiting[number]
                own = {i: held[i] for i in coupling.readers[number]}
                found[number] = _survey_group(refitter, coupling, number, own, align, threads)
                for user in coupling.readers[number]:
                    uses[user] -= 1
                    if not uses[user]:
                        del held[user]

    refitter.survey.run(look, progress)
    return found


def _survey_group(
    refitter: Refitter,
    coupling: Coupling,
    number: int,
    evidences: Mapping[int, Evidence],
    align: int | None,
    threads: int,
) -> Found:
    group = coupling.groups[number]
    readers = [Reader(e, coupling.places(i, number)) for i, e in evidences.items()]
    orders = _orders(readers, group.count)
    # The model's outputs are looked at for a few counts; between them the readers' own errors give
    # the shape of the curve.
    counts = group.counts(align)
    lost = [group.count - kept for kept in counts]
    local = orders["removal"].errors[lost]
    looks = sorted({1, len(counts) // 2, len(counts) - 1} & set(range(1, len(counts))))
    if not all(refitter.is_whole(index) for index in evidences):
        looks = []  # the readers are so large that only some of their neurons are here
    ratios = []
    for level in looks:
        _, _, solved = best_units(readers, orders, counts[level], threads)
        choices = dict(zip(evidences, solved, strict=True))
        error = refitter.impact(choices)
        ratios.append(np.log(max(error, _TINY) / max(local[level], _TINY)))
    scale = np.exp(np.interp(range(len(counts)), looks, ratios)) if looks else 1.0
    measured = local * scale
    return Found(orders, Curve(counts, local.tolist()), Curve(counts, measured.tolist()))


def _orders(readers: Sequence[Reader], count: int) -> dict[str, Order]:
    orders = {"removal": eliminated(readers, count)}
    if all(reader.evidence.is_seen for reader in readers):
        orders["sipp"] = ranked_by_sensitivity(readers, count)
    return orders


def best_units(
    readers: Sequence[Reader], orders: Mapping[str, Order], count: int, threads: int
) -> tuple[NDArray[np.int64], str, list[Choice]]:
    """The units to keep by the way that leaves the least error after a short refit.

    Args:
        readers: of the group.
        orders: the ways to choose from.
        count: how many units stay.
        threads: of the refits.

    Returns:
        Places of the units, the name of the way, and what becomes of the readers.
    """
    tried = []
    for name, order in orders.items():
        units = order.kept(count)
        choices = [_probe(reader, units, name, threads) for reader in readers]
        tried.append((sum(choice.error for choice in choices), name, units, choices))
    _, name, units, choices = min(tried, key=lambda item: item[0])
    return units, name, choices


def _probe(reader: Reader, units: NDArray[np.int64], name: str, threads: int) -> Choice:
    evidence = reader.evidence.without_bias()
    stays = (reader.units < 0) | np.isin(reader.units, units)
    kept = np.repeat(stays[:, None], evidence.weight.shape[1], axis=1)
    solved = refit(
        evidence.fit, evidence.weight, kept,
        damping=damping_for(evidence), steps=_STEPS, threads=threads,
    )  # fmt: skip
    error = evidence.error(solved.weight)
    bias = evidence.fit.best_bias(solved.weight)
    return Choice(kept, solved.weight, bias, name, 0.0, error, error)
