"""SiPP's sensitivities and budget by themselves, for those who build on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.branches import lower_as_run
from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.observe import Observation, observe
from onnx_sipp.calibration.samples import Samples, open_samples
from onnx_sipp.config.kinds import COUNT, checked_keyword, read_as
from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import Lowered, lower
from onnx_sipp.graph.model import Model, ModelSource
from onnx_sipp.measures import PatchCount, Sensitivity
from onnx_sipp.options import available_threads
from onnx_sipp.progress import Silent
from onnx_sipp.pruning.budget import allocate_halves
from onnx_sipp.pruning.certificate import DELTA
from onnx_sipp.pruning.halves import neuron_halves, neuron_sizes
from onnx_sipp.pruning.importance import LayerStatistics
from onnx_sipp.statistics.sensitivity import Reduction
from onnx_sipp.store import TensorStore
from onnx_sipp.weight_groups import group_weights
from onnx_sipp.weights import Weight

__all__ = ["Sensitivities", "allocate", "sensitivities"]


class Sensitivities(dict[str, NDArray[np.float32]]):
    """Sensitivity of every weight, by layer name, in the shape of the stored weight.

    Attributes:
        reduction: ``"mean"`` or ``"max"``.
        patches: by layer name, the most patches a sample had.
        samples: number of samples seen.
    """

    def __init__(
        self,
        values: Mapping[str, NDArray[np.float32]],
        *,
        reduction: Reduction,
        patches: Mapping[str, int],
        samples: int,
    ) -> None:
        super().__init__(values)
        self.reduction = reduction
        self.patches = dict(patches)
        self.samples = samples


def sensitivities(
    model: ModelSource,
    calibration: Any = None,
    *,
    reduction: Reduction = "max",
    num_samples: int | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
    custom_ops: Sequence[str | Path] = (),
    seed: int = 0,
) -> Sensitivities:
    """Measure the empirical sensitivity of every prunable weight (arXiv 1910.05422).

    All samples are used, none is held out. A weight that several layers share gets the largest of
    its sensitivities, under the name of each of them; one that no sample reaches has none: zeros.

    Args:
        model: a path, the bytes of a model, or a ModelProto.
        calibration: sample inputs, as for `prune`.
        reduction: ``"max"`` over patches and samples, or ``"mean"`` over the patches of a sample
            and then the maximum over samples.
        num_samples: most samples to use; None for all of given data.
        input_shapes: shapes for synthetic inputs, by input name.
        batch_size: most samples at a time; changes nothing but speed and memory.
        threads: None for all cores.
        providers: onnxruntime execution providers; None for the CPU.
        custom_ops: libraries with operators that onnxruntime must load.
        seed: of synthetic inputs.

    Raises:
        UsageError: the reduction is unknown, there is no such file, or an argument is of another
            kind.
        SippError: the model or the data cannot be used.
    """
    if reduction not in ("mean", "max"):
        raise UsageError(f"reduction must be 'mean' or 'max', not {reduction!r}")
    num_samples = checked_keyword("num_samples", num_samples)
    batch_size = checked_keyword("batch_size", batch_size)
    threads = checked_keyword("threads", threads)
    providers = checked_keyword("providers", providers)
    loaded = _loaded(model, checked_keyword("custom_ops", custom_ops))
    samples = _opened(loaded, calibration, num_samples, input_shapes, providers, seed)
    count = threads or available_threads()
    lowered = lower_as_run(loaded, samples.all_feeds(), threads=count, providers=providers)
    execution = Execution(samples.inputs, TensorStore(), count, providers, batch_size)
    how = Observation(execution, lowered, samples.calibration, count, Silent())
    return _observed(lowered, how, reduction)


def _loaded(model: ModelSource, libraries: Sequence[str | Path]) -> Model:
    """Read a model that has something to prune."""
    loaded = Model.load(model, [Path(library) for library in libraries])
    if not find_layers(lower(loaded)).layers:
        raise SippError("the model has no weight that can be pruned; see `onnx-sipp inspect`")
    return loaded


def _opened(
    model: Model,
    calibration: Any,
    num_samples: int | None,
    input_shapes: Mapping[str, tuple[int, ...]] | None,
    providers: Sequence[str] | None,
    seed: int,
) -> Samples:
    """Open the samples, none of which is held out."""
    return open_samples(
        model,
        calibration,
        num_samples=num_samples,
        default_samples=None,
        seed=checked_keyword("seed", seed),
        input_shapes=checked_keyword("input_shapes", input_shapes or {}),
        providers=providers,
        hold_out=False,
    )


def _observed(lowered: Lowered, how: Observation, reduction: Reduction) -> Sensitivities:
    """The sensitivities of all weights."""
    layers = find_layers(lowered).layers
    weights = group_weights(lowered, layers)
    store = TensorStore(sum(4 * weight.size for weight in weights))
    gathered = [Sensitivity(weight, reduction, store) for weight in weights]
    patches = {layer.name: PatchCount() for layer in layers}
    observe(
        how,
        [
            *(watch for found in gathered for watch in found.watches(how.threads)),
            *(patches[layer.name].watch(layer) for layer in layers),
        ],
    )
    values = {}
    for weight, found in zip(weights, gathered, strict=True):
        whole = found.whole()
        for layer in weight.layers:
            values[layer.name] = layer.view.to_stored(weight.as_seen_by(layer, whole))
    in_order = {layer.name: values[layer.name] for layer in layers}
    most = {name: count.most for name, count in patches.items()}
    return Sensitivities(in_order, reduction=reduction, patches=most, samples=len(how.feeds))


def allocate(
    model: ModelSource,
    measured: Sensitivities,
    *,
    sparsity: float | None = None,
    keep: int | None = None,
    delta: float = DELTA,
) -> dict[str, NDArray[np.int64]]:
    """SiPP's convex budget, solved exactly: how many weights each neuron half keeps.

    Args:
        model: that the sensitivities belong to.
        measured: ``max`` sensitivities, from `sensitivities`.
        sparsity: share of weights to drop; or
        keep: how many to keep in all.
        delta: failure probability of the bounds.

    Returns:
        By layer name, int64 ``[2, neurons]``: for the positive and the negative half of each
        neuron. They sum to the budget exactly, or to the number of non-zero weights if that is
        less; weights without sensitivity get what no half needs. Layers that share a weight have
        one budget, given for the neurons of the first of them.

    Raises:
        UsageError: the goal is missing or impossible, or the sensitivities do not fit the model.
    """
    if not isinstance(measured, Sensitivities):
        raise UsageError(
            "the budget needs what `sensitivities` gives for the model, not "
            f"{type(measured).__name__}"
        )
    sparsity, delta = checked_keyword("sparsity", sparsity), checked_keyword("delta", delta)
    keep = None if keep is None else read_as(COUNT, "keep", keep)
    lowered = lower(Model.load(model))
    weights = group_weights(lowered, find_layers(lowered).layers)
    if measured.reduction != "max" or any(not _fits(weight, measured) for weight in weights):
        raise UsageError("the budget needs the `max` sensitivities of this very model")
    if not 0 < delta < 1:
        raise UsageError(f"delta must lie between 0 and 1, not {delta}")
    keep = _wanted(sum(weight.size for weight in weights), sparsity, keep)
    counts = _counts([_statistics(weight, measured) for weight in weights], keep, delta)
    result, start = {}, 0
    for weight in weights:
        halves = 2 * weight.shape[0] * weight.shape[1]
        rows = counts[start : start + halves].reshape(2, -1)
        result.update({layer.name: rows for layer in weight.layers})
        start += halves
    return result


def _counts(layers: Sequence[LayerStatistics], keep: int, delta: float) -> NDArray[np.int64]:
    """How many weights each neuron half of all layers keeps."""
    counts = allocate_halves(neuron_halves(layers, delta), keep)
    # What no half needs goes to weights without sensitivity.
    spare = neuron_sizes(layers) - counts
    filled = np.minimum(np.cumsum(spare), keep - int(counts.sum()))
    counts += np.diff(filled, prepend=0)
    return counts


def _fits(weight: Weight, measured: Sensitivities) -> bool:
    values = measured.get(weight.layers[0].name)
    return values is not None and values.shape == weight.view.stored


def _wanted(total: int, sparsity: float | None, keep: int | None) -> int:
    """How many weights stay."""
    if (sparsity is None) == (keep is None):
        raise UsageError("give either a sparsity or the number of weights to keep")
    if sparsity is not None:
        if not 0 <= sparsity < 1:
            raise UsageError(f"sparsity must be at least 0 and below 1, not {sparsity}")
        return total - round(sparsity * total)
    assert keep is not None
    if not 0 <= keep <= total:
        raise UsageError(f"of {total} prunable weights, {keep} cannot be kept")
    return keep


def _statistics(weight: Weight, measured: Sensitivities) -> LayerStatistics:
    name = weight.layers[0].name
    patches = sum(measured.patches[layer.name] for layer in weight.layers)
    matrix = weight.view.to_matrix(measured[name])
    return LayerStatistics(weight.matrix, sensitivity_max=matrix, patches=patches)
