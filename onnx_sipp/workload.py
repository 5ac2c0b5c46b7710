"""What a sample costs, in multiplications of the layers, and how many samples that allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.samples import Chosen, Samples
from onnx_sipp.graph.layers import Layer
from onnx_sipp.graph.lowering import Lowered
from onnx_sipp.memory import Plan
from onnx_sipp.statistics.gram import gram_bytes

__all__ = ["certified_on", "made_up_for", "multiplications", "patch_counts", "plan_memory"]

# Samples that the certificate asks for: 3 ln(8 η η* / δ) are below this up to 10⁹ outputs of
# neurons at the default δ. And what sensitivities may cost; but some samples are always looked at.
_CERTIFYING, _CERTIFYING_WORK, _FEWEST = 256, 3e11, 4
# Inputs that were made up tell little, so what they cost may be less; one of them is held out.
_MADE_UP_WORK, _FEWEST_MADE_UP = 3e10, 2


def patch_counts(
    execution: Execution, model: Lowered, layers: Sequence[Layer], samples: Samples
) -> dict[str, int]:
    """Input vectors of one sample, by layer name; 0 for layers that no sample reaches.

    Raises:
        SippError: the runtime fails on the first sample.
    """
    reached = [layer for layer in layers if layer.activation not in model.unseen]
    names = {layer.activation for layer in reached}
    shapes = execution.shapes(model, names, next(iter(samples.calibration)))
    counts = dict.fromkeys((layer.name for layer in layers), 0)
    for layer in reached:
        groups, _, fan_in = layer.view.matrix
        size = layer.unfolding.patch_bytes(shapes[layer.activation])
        counts[layer.name] = size // (4 * groups * fan_in)
    return counts


def multiplications(layers: Sequence[Layer], counts: Mapping[str, int]) -> int:
    """Products of a weight and an input that one sample takes."""
    return sum(counts[layer.name] * layer.view.size for layer in layers)


def plan_memory(
    layers: Sequence[Layer], counts: Mapping[str, int], samples: Samples, limit: int
) -> Plan:
    """Part the work so that the process stays within a limit, in bytes."""
    feeds = len(samples.calibration) + len(samples.held_out)
    inputs = [gram_bytes(layer.view.matrix[2], feeds * counts[layer.name]) for layer in layers]
    return Plan.within(limit, max(inputs, default=0), max(layer.view.size for layer in layers))


def made_up_for(samples: Samples, work: int, asked: int | None) -> Samples:
    """Fewer made-up samples where each is costly, unless a number was asked for.

    Args:
        samples: any.
        work: multiplications of a sample.
        asked: the number that was asked for.
    """
    if not samples.synthetic or asked is not None:
        return samples
    return samples.at_most(max(_FEWEST_MADE_UP, int(_MADE_UP_WORK // max(1, work))))


def certified_on(samples: Samples, work: int) -> Chosen:
    """The samples for sensitivities where nothing but the certificate rests on them.

    Args:
        samples: of the run.
        work: multiplications of a sample.
    """
    limit, fewest = _CERTIFYING_WORK, _FEWEST
    if samples.synthetic:
        limit, fewest = _MADE_UP_WORK, 1
    most = max(fewest, int(limit // max(1, work)))
    return samples.calibration.at_most(min(_CERTIFYING, most))
