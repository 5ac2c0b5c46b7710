"""What a run is asked to do, checked before anything is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from onnx_sipp.choices import DEFAULT_METHOD, SOUGHT
from onnx_sipp.config.rules import Rule
from onnx_sipp.memory import DEFAULT_LIMIT
from onnx_sipp.pruning.certificate import DELTA
from onnx_sipp.pruning.error_budget import FLOOR
from onnx_sipp.pruning.patterns import Blocks, Channels, NofM, Pattern, parse_pattern

__all__ = ["Options", "available_threads"]


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
            for budgets by measured error. The report warns of layers that keep less.
        candidates: which ways of choosing weights the default method compares in each layer; None
            for all.
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
        providers: onnxruntime execution providers; None for the CPU. Where CUDA comes before the
            CPU, it also makes the large products of least squares.
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

    @property
    def goals(self) -> dict[str, float]:
        """What a sparsity is to be searched for, by name of the option."""
        values = {name: getattr(self, name) for name in SOUGHT}
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
        """Threads to use; how work is parted depends on it."""
        return self.threads or (1 if self.scheduler else available_threads())

    @property
    def packs_with_loss(self) -> bool:
        """Whether packing rounds values."""
        return self.storage == "packed" and self.pack_values != "exact"

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
    """Cores that this process may use: its affinity and the quota of a container count."""
    from loky import cpu_count  # noqa: PLC0415 - loads more than is used of it

    return int(cpu_count())
