"""What must hold for the options of a run, and what is said where it does not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_sipp.choices import (
    COMPENSATIONS,
    DEFAULT_METHOD,
    QUANTIZATIONS,
    STORAGES,
    VALUES,
)
from onnx_sipp.pruning.candidates import CANDIDATES
from onnx_sipp.pruning.error_budget import FLOOR
from onnx_sipp.pruning.methods import METHODS, REFIT_ALLOCATIONS, allocations_of
from onnx_sipp.pruning.patterns import Channels, NofM

if TYPE_CHECKING:
    from onnx_sipp.options import Options

__all__ = ["rules_for"]

# Whether it holds, and what is wrong where it does not.
_Rule = tuple[bool, str]

# What the pattern channels leaves nothing to do for, with what it is if nobody says anything.
_IDLE_BESIDE_CHANNELS: Mapping[str, Any] = {
    "allocation": METHODS[DEFAULT_METHOD].allocation, "rounds": 1, "new_biases": True,
    "dead_paths": True,
}  # fmt: skip
_SCHEDULERS = re.compile(r"local:[1-9]\d{0,3}|(tcp|tls|ws|wss|ucx)://\S+")


def rules_for(options: Options) -> Iterator[_Rule]:
    """All that must hold, each with what to say if it does not."""
    for rules in (
        _of_goals, _of_running, _of_methods, _of_channels, _of_rules, _of_candidates, _of_results
    ):  # fmt: skip
        yield from rules(options)
    for name in ("num_samples", "batch_size", "threads", "rounds", "state_reset", "align"):
        value = getattr(options, name)
        yield value is None or value >= 1, f"{name} must be at least 1, not {value}"


def _of_goals(options: Options) -> list[_Rule]:
    """What must hold for numbers that say how far to go."""
    return [
        (
            options.sparsity is None or 0 <= options.sparsity < 1,
            f"sparsity must be at least 0 and below 1, not {options.sparsity}; "  # noqa: ISC004
            "0.7 makes 70 % of the weights zero",
        ),
        (
            options.epsilon is None or 0 <= options.epsilon < float("inf"),
            f"epsilon must be a number from 0 on, not {options.epsilon}",
        ),
        (
            options.max_error is None or 0 <= options.max_error < float("inf"),
            f"max_error must be a number from 0 on, not {options.max_error}; 0.05 allows 5 %",
        ),
        (
            options.min_agreement is None or 0 <= options.min_agreement <= 1,
            f"min_agreement must be a share between 0 and 1, not {options.min_agreement}",
        ),
        (
            options.max_drop is None or 0 <= options.max_drop < float("inf"),
            f"max_drop must be a number from 0 on, not {options.max_drop}",
        ),
        (
            (options.max_drop is None) == (options.eval_script is None),
            "max_drop and eval_script go together: how much lower the number that the "  # noqa: ISC004
            "function gives may be",
        ),
    ]


def _of_running(options: Options) -> list[_Rule]:
    """What must hold for how it is run."""
    return [
        (
            options.workdir is None or Path(options.workdir).is_dir(),
            f"the work folder {str(options.workdir)!r} does not exist; create it",
        ),
        (0 <= options.floor <= 1, f"floor must be a share between 0 and 1, not {options.floor}"),
        (
            all(Path(library).is_file() for library in options.custom_ops),
            "there is no such library of operators: "
            + ", ".join(str(p) for p in options.custom_ops if not Path(p).is_file()),
        ),
        (
            not options.scheduler or _SCHEDULERS.fullmatch(options.scheduler) is not None,
            "scheduler must be an address like tcp://host:8786, or local:N for N processes "  # noqa: ISC004
            f"on this machine, not {options.scheduler!r}",
        ),
        (options.memory_limit >= 0, f"memory_limit is negative: {options.memory_limit}"),
        (options.seed >= 0, f"seed must be 0 or more, not {options.seed}"),
        (0 < options.delta < 1, f"delta must lie between 0 and 1, not {options.delta}"),
    ]


def _of_methods(options: Options) -> list[_Rule]:
    """What must hold for the method, the budget and the refit."""
    return [
        (
            options.allocation in allocations_of(options.method),
            f"method {options.method!r} works with the allocations "  # noqa: ISC004
            f"{', '.join(allocations_of(options.method))}, not {options.allocation!r}",
        ),
        (
            options.compensate in COMPENSATIONS,
            f"compensate must be one of {', '.join(COMPENSATIONS)}, not {options.compensate!r}",
        ),
        (
            options.epsilon is None or (options.compensate == "none" and options.method != "mixed"),
            "an epsilon goes with the methods of the paper and without a refit: the bound is "  # noqa: ISC004
            "about weights that are dropped or sampled",
        ),
        (
            not options.pattern or options.epsilon is None,
            f"an epsilon goes without the pattern {options.pattern}: it says how many single "  # noqa: ISC004
            "weights every neuron half keeps",
        ),
        (
            not options.pattern
            or (METHODS[options.method].mixing == "never" and options.allocation != "sipp"),
            f"method {options.method!r} with the budget {options.allocation!r} gives out or draws "  # noqa: ISC004
            f"single weights per neuron half, which the pattern {options.pattern} has no room "
            "for; take method mixed, magnitude, wanda, sipp-det or random, and another budget",
        ),
        (
            options.rounds == 1 or options.method == DEFAULT_METHOD or options.compensate != "none",
            f"method {options.method!r} without a refit chooses all weights at once, so there are "  # noqa: ISC004
            "no rounds; leave rounds out, or add a refit (compensate)",
        ),
        (
            # Files that write all options down have the usual one, too.
            options.floor == FLOOR or _minds_floors(options),
            "a floor goes with the default method and its budgets by measured error "  # noqa: ISC004
            f"({', '.join(REFIT_ALLOCATIONS)}), and without the patterns N:M and channels; leave "
            "floor out, or else method, allocation and pattern",
        ),
    ]


def _minds_floors(options: Options) -> bool:
    """Whether the budget looks at floors, and at what rules give to single layers."""
    fixed = isinstance(options.parsed_pattern, Channels | NofM)
    return options.allocation in REFIT_ALLOCATIONS and not fixed


def _of_candidates(options: Options) -> list[_Rule]:
    """What must hold for the ways of choosing that are compared."""
    return [
        (
            not options.pattern or tuple(options.candidates) != ("sipp-rand",),
            "the candidate sipp-rand draws single weights, for which the pattern "  # noqa: ISC004
            f"{options.pattern} has no room; name another one",
        ),
        (
            set(options.candidates) <= set(CANDIDATES),
            f"the candidates are {', '.join(CANDIDATES)}, not {', '.join(options.candidates)}",
        ),
        (
            not options.candidates or _compares_candidates(options),
            "candidates are compared by the default method, and not with channels; leave "  # noqa: ISC004
            "candidates out, or else method and pattern",
        ),
    ]


def _compares_candidates(options: Options) -> bool:
    """Whether several ways of choosing weights are tried in each layer."""
    cuts = isinstance(options.parsed_pattern, Channels)
    return options.method == DEFAULT_METHOD and not cuts


def _of_results(options: Options) -> list[_Rule]:
    """What must hold for how the result is stored."""
    return [
        (
            not options.quantize or options.quantize in QUANTIZATIONS,
            f"quantize must be one of {', '.join(QUANTIZATIONS)}, not {options.quantize!r}",
        ),
        (
            options.storage in STORAGES,
            f"storage must be one of {', '.join(STORAGES)}, not {options.storage!r}",
        ),
        (
            options.pack_values in VALUES,
            f"pack_values must be one of {', '.join(VALUES)}, not {options.pack_values!r}",
        ),
        (
            options.pack_values == "exact" or options.storage == "packed",
            f"pack_values {options.pack_values!r} goes with the storage 'packed'",
        ),
    ]


def _of_rules(options: Options) -> list[_Rule]:
    """What must hold for rules that are about more than leaving layers alone."""
    budgets = [r for r in options.rules if r.sparsity is not None or r.floor is not None]
    chosen = [rule for rule in options.rules if rule.candidates]
    return [
        (
            not budgets or _minds_floors(options),
            "a sparsity or floor for single layers goes with the default method and its "  # noqa: ISC004
            "budgets by measured error, and without the patterns N:M and channels",
        ),
        (
            not chosen or _compares_candidates(options),
            "candidates for single layers go with the default method, and not with channels",
        ),
    ]


def _of_channels(options: Options) -> list[_Rule]:
    """What must hold for the pattern channels, and for options that go with it alone."""
    cuts = isinstance(options.parsed_pattern, Channels)
    only = [n for n in ("macs", "latency", "align") if getattr(options, n) is not None]
    goals = [n for n in ("sparsity", "macs", "latency") if getattr(options, n) is not None]
    shares = [n for n in ("macs", "latency") if n in goals]
    idle = [n for n, usual in _IDLE_BESIDE_CHANNELS.items() if getattr(options, n) != usual]
    return [
        (
            cuts or not only,
            f"{' and '.join(only)} can only be had by cutting channels out of the graph; "  # noqa: ISC004
            "add --pattern channels (pattern='channels')",
        ),
        (
            not shares or len(goals) == 1,
            f"give one goal, not {' and '.join(goals)}: each fixes the others",
        ),
        (
            all(0 < getattr(options, name) <= 1 for name in shares),
            f"{' and '.join(shares)} must be above 0 and at most 1: the share that stays; "  # noqa: ISC004
            "0.5 halves it",
        ),
        (
            not cuts or (options.method == DEFAULT_METHOD and options.compensate == "sequential"),
            "channels are chosen by the default method with a sequential refit; leave method "  # noqa: ISC004
            "and compensate out",
        ),
        (
            not cuts or not idle,
            f"{' and '.join(idle)} would change nothing where channels are cut, which have a "  # noqa: ISC004
            f"budget and a refit of their own; leave {' and '.join(idle)} out",
        ),
    ]
