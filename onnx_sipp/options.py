"""What a run is asked to do, checked before anything is read."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from onnx_sipp.config.rules import Rule
from onnx_sipp.errors import UsageError
from onnx_sipp.memory import DEFAULT_LIMIT
from onnx_sipp.pruning.candidates import CANDIDATES
from onnx_sipp.pruning.certificate import DELTA
from onnx_sipp.pruning.error_budget import FLOOR
from onnx_sipp.pruning.methods import METHODS, REFIT_ALLOCATIONS, allocations_of
from onnx_sipp.pruning.patterns import Blocks, Channels, NofM, Pattern, parse_pattern

__all__ = [
    "COMPENSATIONS",
    "DEFAULT_METHOD",
    "DEFAULT_SPARSITY",
    "PRUNE_ONLY",
    "QUANTIZATIONS",
    "STORAGES",
    "VALUES",
    "Options",
    "available_threads",
]

# What measures best, see docs/accuracy.md.
DEFAULT_METHOD = "mixed"
COMPENSATIONS = ("sequential", "layerwise", "none")
DEFAULT_SPARSITY = 0.5
STORAGES = ("dense", "packed")
# See docs/quantization.md.
QUANTIZATIONS = ("int8", "int8-dynamic")
# Types of packed elements.
VALUES = ("exact", "fp16", "int8")
# What masks leave nothing to do for, with what it is if nobody says anything.
_IDLE_BESIDE_MASKS: Mapping[str, Any] = {
    "pattern": "", "method": DEFAULT_METHOD, "allocation": "auto", "rounds": 1, "floor": FLOOR,
    "candidates": (),
}  # fmt: skip
_SCHEDULERS = re.compile(r"local:[1-9]\d{0,3}|(tcp|tls|ws|wss|ucx)://\S+")
# Options that are about one pruned model: a sweep goes through several, calibration through none.
PRUNE_ONLY = (
    "sparsity", "epsilon", "max_error", "min_agreement", "max_drop", "eval_script", "macs",
    "latency", "masks", "quantize", "storage", "pack_values",
)  # fmt: skip
# Goals for which a sparsity is searched.
_SOUGHT = ("max_error", "min_agreement", "max_drop")


@dataclass(frozen=True)
class Options:
    """Options of a run; None means the default.

    Attributes:
        sparsity: share of the prunable weights that will be zero, met to the weight.
        epsilon: instead of a sparsity: the certified relative error that every neuron half may
            have.
        max_error: instead of a sparsity: the largest relative error of any output on held-out
            samples; the highest sparsity that keeps it is searched for.
        min_agreement: likewise, the least top-1 agreement with the dense model.
        max_drop: likewise, how much lower the number of ``eval_script`` may be than the dense
            model's. Several of these three must all hold.
        eval_script: for ``max_drop``: ``"file.py:function"``, or a function of a model's path; its
            number is the higher the better.
        masks: instead of a sparsity: which weights stay, as `PruneResult.masks` or the path of a
            ``.npz`` file has them: bool arrays by layer name, in the shape of the weight that the
            layer multiplies. They are refitted; layers without a mask are left alone.
        delta: failure probability of the certificate.
        method: key of `METHODS`.
        pattern: what the zeros have to lie in: ``"N:M"``, ``"RxC"``, ``"channels"``; ``""`` for
            any place. ``N:M`` fixes the sparsity. ``channels`` cuts whole channels, hidden units
            and heads out of the graph; ``sparsity`` is then the share of all parameters to lose.
        macs: with channels, instead of a sparsity: share of the multiply-adds that may stay.
        latency: with channels, instead of a sparsity: share of the time that a run in onnxruntime
            may take, measured.
        align: with channels: multiples of this many are kept; None for 16, and for 8 or 4 where a
            group has few.
        allocation: how the budget is shared out; None for the method's own way.
        compensate: refit the kept weights in graph order (``"sequential"``), each layer by itself
            (``"layerwise"``) or not (``"none"``); None for sequential with the default method, and
            for none with the others, which stay what they are in the literature.
        rounds: prune and refit in so many steps.
        floor: share of its weights that every layer keeps at least, as far as the total allows;
            for budgets by measured error.
        candidates: which ways of choosing weights are compared in each layer; None for all.
        new_biases: with a refit, add a bias to a Conv or Gemm that has none where that helps.
        dead_paths: with a refit, weights that no output depends on make room for others.
        num_samples: most calibration samples (feeds) to use, a fifth of them held out; None for 512
            of given data and 32 synthetic ones.
        input_shapes: shapes for synthetic inputs, by input name.
        exclude_nodes: globs over node names to leave alone.
        exclude_op_types: operator types to leave alone.
        include_nodes: globs over node names: all others are left alone. None for all.
        include_op_types: likewise for operator types.
        rules: what holds for some layers only; mappings with the fields of `config.rules.Rule`.
        include_tied: prune weights, too, that something else than layers reads: an embedding that
            is looked up, an output of the graph.
        batch_size: most samples at a time; None to choose. Changes nothing but speed and memory.
        threads: threads to use; None for all cores.
        providers: onnxruntime execution providers; None for the CPU.
        custom_ops: libraries with operators that onnxruntime must load to run the model; their code
            is executed.
        mask_input: an input that is 0 where the data is padding, which then stays out of every
            statistic; None takes one called ``attention_mask``, ``""`` none at all.
        states: inputs that are fed back from one sample to the next, and the outputs that they come
            from; None finds them by their names.
        state_reset: samples in a sequence; the states are reset after so many. None takes every
            file of a folder for a sequence, and other data for one.
        memory_limit: bytes that the process may take, all in all. What does not fit goes to files,
            and large layers are worked on in smaller blocks of neurons.
        workdir: folder for those files; None for the system's temporary folder. Finished parts of
            the run are kept there, too, until it is done: an interrupted run goes on.
        scheduler: of Dask, ``tcp://host:8786``, or ``local:N`` for N processes on this machine,
            which share the work; "" for none. ``threads`` are then those of each, 1 by default.
        statistics: file that `calibrate` wrote, to take the statistics from.
        quantize: turn the pruned model into integers by onnxruntime's quantiser: ``"int8"``
            (static, calibrated on the samples), ``"int8-dynamic"``, or ``""`` for not.
        storage: how weights are stored: ``"dense"``, or ``"packed"``, without their zeros, to be
            rebuilt by operators when the model is loaded.
        pack_values: type that packed floating-point weights are stored in: ``"exact"``, or with a
            loss that is reported as ``"fp16"`` or ``"int8"``.
        seed: of everything random.
    """

    sparsity: float | None = None
    epsilon: float | None = None
    max_error: float | None = None
    min_agreement: float | None = None
    max_drop: float | None = None
    eval_script: str | Callable[[Path], float] | None = None
    masks: str | Path | Mapping[str, Any] | None = None
    delta: float = DELTA
    method: str = DEFAULT_METHOD
    pattern: str = ""
    macs: float | None = None
    latency: float | None = None
    align: int | None = None
    allocation: str = ""
    compensate: str = ""
    rounds: int = 1
    floor: float = FLOOR
    candidates: Sequence[str] = ()
    new_biases: bool = True
    dead_paths: bool = True
    num_samples: int | None = None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    exclude_nodes: Sequence[str] = ()
    exclude_op_types: Sequence[str] = ()
    include_nodes: Sequence[str] = ()
    include_op_types: Sequence[str] = ()
    rules: Sequence[Rule] = ()
    include_tied: bool = False
    batch_size: int | None = None
    threads: int | None = None
    providers: Sequence[str] | None = None
    custom_ops: Sequence[str | Path] = ()
    mask_input: str | None = None
    states: Mapping[str, str] | None = None
    state_reset: int | None = None
    memory_limit: int = DEFAULT_LIMIT
    workdir: Path | None = None
    statistics: str | Path | None = None
    scheduler: str = ""
    quantize: str = ""
    storage: str = "dense"
    pack_values: str = "exact"
    seed: int = 0

    @classmethod
    def checked(cls, options: Mapping[str, Any]) -> Options:
        """Build options from keywords and check them.

        Raises:
            UsageError: a name is unknown or a value makes no sense.
        """
        names = [option.name for option in fields(cls)]
        for name in options:
            if name not in names:
                close = difflib.get_close_matches(name, names, 1)
                hint = (
                    f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(names)}"
                )
                raise UsageError(f"there is no option {name!r}{hint}")
        given = {name: value for name, value in options.items() if value is not None}
        if "sparsity" in given and "epsilon" in given:
            raise UsageError("give either a sparsity or an epsilon, not both: each fixes the other")
        _refuse_beside_masks(given)
        shape = parse_pattern(given.get("pattern", ""))
        _refuse_second_goal(given, shape)
        if isinstance(shape, NofM):
            implied = _sparsity_of(shape, given)
            if "epsilon" not in given:
                given["sparsity"] = implied
        if not {"epsilon", "macs", "latency", "masks", *_SOUGHT} & set(given):
            given.setdefault("sparsity", DEFAULT_SPARSITY)
        # A bound is about weights that are dropped or sampled, not about refitted ones.
        method = given.setdefault("method", "sipp-hybrid" if "epsilon" in given else DEFAULT_METHOD)
        if method not in METHODS:
            raise UsageError(f"there is no method {method!r}; there are {', '.join(METHODS)}")
        given["allocation"] = given.get("allocation") or METHODS[method].allocation
        given["rules"] = [Rule.of(rule) for rule in given.get("rules", ())]
        refits = "sequential" if method == "mixed" else "none"
        given["compensate"] = given.get("compensate") or refits
        result = cls(**given)
        result._check()
        return result

    def _check(self) -> None:
        rules = [
            *self._rules_of_goals(),
            *self._rules_of_running(),
            *self._rules_of_methods(),
            *self._rules_of_channels(),
            *self._rules_of_rules(),
            *self._rules_of_candidates(),
            *self._rules_of_results(),
        ]
        for holds, message in rules:
            if not holds:
                raise UsageError(message)
        for name in ("num_samples", "batch_size", "threads", "rounds", "state_reset", "align"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")

    def _rules_of_goals(self) -> list[tuple[bool, str]]:
        """What must hold for numbers that say how far to go."""
        return [
            (
                self.sparsity is None or 0 <= self.sparsity < 1,
                f"sparsity must be at least 0 and below 1, not {self.sparsity}; "  # noqa: ISC004
                "0.7 makes 70 % of the weights zero",
            ),
            (
                self.epsilon is None or 0 <= self.epsilon < float("inf"),
                f"epsilon must be a number from 0 on, not {self.epsilon}",
            ),
            (
                self.max_error is None or 0 <= self.max_error < float("inf"),
                f"max_error must be a number from 0 on, not {self.max_error}; 0.05 allows 5 %",
            ),
            (
                self.min_agreement is None or 0 <= self.min_agreement <= 1,
                f"min_agreement must be a share between 0 and 1, not {self.min_agreement}",
            ),
            (
                self.max_drop is None or 0 <= self.max_drop < float("inf"),
                f"max_drop must be a number from 0 on, not {self.max_drop}",
            ),
            (
                (self.max_drop is None) == (self.eval_script is None),
                "max_drop and eval_script go together: how much lower the number that the "  # noqa: ISC004
                "function gives may be",
            ),
        ]

    def _rules_of_running(self) -> list[tuple[bool, str]]:
        """What must hold for how it is run."""
        return [
            (
                self.workdir is None or Path(self.workdir).is_dir(),
                f"the work folder {str(self.workdir)!r} does not exist; create it",
            ),
            (0 <= self.floor <= 1, f"floor must be a share between 0 and 1, not {self.floor}"),
            (
                all(Path(library).is_file() for library in self.custom_ops),
                "there is no such library of operators: "
                + ", ".join(str(p) for p in self.custom_ops if not Path(p).is_file()),
            ),
            (
                not self.scheduler or _SCHEDULERS.fullmatch(self.scheduler) is not None,
                "scheduler must be an address like tcp://host:8786, or local:N for N processes "  # noqa: ISC004
                f"on this machine, not {self.scheduler!r}",
            ),
            (self.memory_limit >= 0, f"memory_limit is negative: {self.memory_limit}"),
            (self.seed >= 0, f"seed must be 0 or more, not {self.seed}"),
            (0 < self.delta < 1, f"delta must lie between 0 and 1, not {self.delta}"),
        ]

    def _rules_of_methods(self) -> list[tuple[bool, str]]:
        """What must hold for the method, the budget and the refit."""
        return [
            (
                self.allocation in allocations_of(self.method),
                f"method {self.method!r} works with the allocations "  # noqa: ISC004
                f"{', '.join(allocations_of(self.method))}, not {self.allocation!r}",
            ),
            (
                self.compensate in COMPENSATIONS,
                f"compensate must be one of {', '.join(COMPENSATIONS)}, not {self.compensate!r}",
            ),
            (
                self.epsilon is None or (self.compensate == "none" and self.method != "mixed"),
                "an epsilon goes with the methods of the paper and without a refit: the bound is "  # noqa: ISC004
                "about weights that are dropped or sampled",
            ),
            (
                not self.pattern or self.epsilon is None,
                f"an epsilon goes without the pattern {self.pattern}: it says how many single "  # noqa: ISC004
                "weights every neuron half keeps",
            ),
            (
                not self.pattern
                or (METHODS[self.method].mixing == "never" and self.allocation != "sipp"),
                f"method {self.method!r} with the budget {self.allocation!r} gives out or draws "  # noqa: ISC004
                f"single weights per neuron half, which the pattern {self.pattern} has no room "
                "for; take method mixed, magnitude, wanda, sipp-det or random, and another budget",
            ),
        ]

    def _rules_of_candidates(self) -> list[tuple[bool, str]]:
        """What must hold for the ways of choosing that are compared."""
        return [
            (
                not self.pattern or tuple(self.candidates) != ("sipp-rand",),
                "the candidate sipp-rand draws single weights, for which the pattern "  # noqa: ISC004
                f"{self.pattern} has no room; name another one",
            ),
            (
                set(self.candidates) <= set(CANDIDATES),
                f"the candidates are {', '.join(CANDIDATES)}, not {', '.join(self.candidates)}",
            ),
        ]

    def _rules_of_results(self) -> list[tuple[bool, str]]:
        """What must hold for how the result is stored."""
        return [
            (
                not self.quantize or self.quantize in QUANTIZATIONS,
                f"quantize must be one of {', '.join(QUANTIZATIONS)}, not {self.quantize!r}",
            ),
            (
                self.storage in STORAGES,
                f"storage must be one of {', '.join(STORAGES)}, not {self.storage!r}",
            ),
            (
                self.pack_values in VALUES,
                f"pack_values must be one of {', '.join(VALUES)}, not {self.pack_values!r}",
            ),
            (
                self.pack_values == "exact" or self.storage == "packed",
                f"pack_values {self.pack_values!r} goes with the storage 'packed'",
            ),
        ]

    def _rules_of_rules(self) -> list[tuple[bool, str]]:
        """What must hold for rules that are about more than leaving layers alone."""
        budgets = [r for r in self.rules if r.sparsity is not None or r.floor is not None]
        chosen = [rule for rule in self.rules if rule.candidates]
        fixed = isinstance(self.parsed_pattern, Channels | NofM)
        return [
            (
                not budgets or (self.allocation in REFIT_ALLOCATIONS and not fixed),
                "a sparsity or floor for single layers goes with the default method and its "  # noqa: ISC004
                "budgets by measured error, and without the patterns N:M and channels",
            ),
            (
                not chosen
                or (
                    self.method == DEFAULT_METHOD and not isinstance(self.parsed_pattern, Channels)
                ),
                "candidates for single layers go with the default method, and not with channels",
            ),
        ]

    def _rules_of_channels(self) -> list[tuple[bool, str]]:
        """What must hold for the pattern channels, and for options that go with it alone."""
        cuts = isinstance(self.parsed_pattern, Channels)
        only = [n for n in ("macs", "latency", "align") if getattr(self, n) is not None]
        goals = [n for n in ("sparsity", "macs", "latency") if getattr(self, n) is not None]
        shares = [n for n in ("macs", "latency") if n in goals]
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
                all(0 < getattr(self, name) <= 1 for name in shares),
                f"{' and '.join(shares)} must be above 0 and at most 1: the share that stays; "  # noqa: ISC004
                "0.5 halves it",
            ),
            (
                not cuts or (self.method == DEFAULT_METHOD and self.compensate == "sequential"),
                "channels are chosen by the default method with a sequential refit; leave method "  # noqa: ISC004
                "and compensate out",
            ),
        ]

    @property
    def goals(self) -> dict[str, float]:
        """What a sparsity is to be searched for, by name of the option."""
        values = {name: getattr(self, name) for name in _SOUGHT}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def parsed_pattern(self) -> Pattern | None:
        """What the zeros have to lie in, None for any place."""
        return parse_pattern(self.pattern)

    @property
    def zero_pattern(self) -> NofM | Blocks | None:
        """The same, if it is about zeros in weights that stay in the graph."""
        pattern = self.parsed_pattern
        return None if isinstance(pattern, Channels) else pattern

    @property
    def thread_count(self) -> int:
        """Threads to use."""
        return self.threads or (1 if self.scheduler else available_threads())

    @property
    def adds_biases(self) -> bool:
        """Whether nodes may get a bias."""
        return self.new_biases and self.compensate != "none"

    @property
    def frees_dead_paths(self) -> bool:
        """Whether weights on dead paths are looked for."""
        return self.dead_paths and self.compensate != "none" and self.masks is None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the report."""
        plain = {option.name: _plain(getattr(self, option.name)) for option in fields(self)}
        if isinstance(self.masks, Mapping):
            layers = "1 layer" if len(self.masks) == 1 else f"{len(self.masks)} layers"
            plain["masks"] = f"of {layers}, from memory"
        return plain


def _refuse_second_goal(given: Mapping[str, Any], pattern: Pattern | None) -> None:
    """Check that a sparsity to be searched for is the only thing that is asked for.

    Raises:
        UsageError: something else fixes it.
    """
    sought = [name for name in _SOUGHT if name in given]
    fixed = [n for n in ("sparsity", "epsilon", "macs", "latency") if n in given]
    if sought and fixed:
        raise UsageError(
            f"give either {' and '.join(sought)} or {fixed[0]}, not both: each fixes the other"
        )
    if sought and isinstance(pattern, NofM):
        raise UsageError(
            f"the pattern {pattern} fixes the sparsity, so none can be searched for; leave "
            f"{' and '.join(sought)} out"
        )
    if sought and isinstance(pattern, Channels):
        raise UsageError(
            f"{' and '.join(sought)} cannot be searched for by cutting channels; give "
            "macs, latency or a sparsity"
        )


def _refuse_beside_masks(given: Mapping[str, Any]) -> None:
    """Check that nothing else says which weights stay where masks do.

    Raises:
        UsageError: something does.
    """
    if "masks" not in given:
        return
    goals = [n for n in ("sparsity", "epsilon", "macs", "latency", *_SOUGHT) if n in given]
    # Files that write all options down have these, too.
    idle = [name for name, usual in _IDLE_BESIDE_MASKS.items() if given.get(name, usual) != usual]
    idle = [name for name in idle if given[name]]
    if goals or idle:
        raise UsageError(
            "masks say which weights stay, and so how many; leave "
            f"{' and '.join([*goals, *idle])} out"
        )
    rules = [Rule.of(rule) for rule in given.get("rules", ())]
    if any(r.sparsity is not None or r.floor is not None or r.candidates for r in rules):
        raise UsageError("beside masks, rules for single layers can only exclude them")


def _sparsity_of(pattern: NofM, given: Mapping[str, Any]) -> float:
    """The sparsity that a pattern makes.

    Raises:
        UsageError: another one is asked for, or a way to share it out.
    """
    if (
        "epsilon" not in given
        and abs(given.get("sparsity", pattern.sparsity) - pattern.sparsity) > 0.005
    ):
        raise UsageError(
            f"the pattern {pattern} makes {pattern.sparsity:.1%} of the weights of every layer "
            f"zero, not {given['sparsity']:.1%}; leave the sparsity out, or take another pattern"
        )
    if given.get("allocation"):
        raise UsageError(
            f"the pattern {pattern} fixes how many weights every layer keeps, so there is no "
            f"budget to share out; leave the allocation {given['allocation']!r} out"
        )
    return pattern.sparsity


def _plain(value: Any) -> Any:
    if isinstance(value, Rule):
        return value.to_dict()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if callable(value):
        return getattr(value, "__name__", "a function")
    return str(value) if isinstance(value, Path) else value


def available_threads() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
