"""How several samples go through a model at once: joined into batches that fall apart again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.calibration.runner import Runner
from onnx_sipp.calibration.specs import Feed, InputSpec
from onnx_sipp.errors import SippError
from onnx_sipp.graph.model import Model
from onnx_sipp.graph.walk import has_control_flow

__all__ = [
    "Batch",
    "Batching",
    "Tried",
    "batches",
    "grouped",
    "join",
    "joined",
    "plan_batching",
]

Tensor = NDArray[Any]
# Runs feeds; gives, per stage, the tensors of each feed that the stage asks for.
Tried = Callable[[Iterable[Feed]], Iterator[Sequence[Mapping[str, Tensor]]]]

# Tapped tensors of one batch take at most about this much memory; several may run at once.
BATCH_BYTES = 24 << 20
MAX_BATCH = 64


@dataclass(frozen=True)
class Batching:
    """How several samples go through the model at once.

    Attributes:
        size: samples at a time.
        axes: for each tap, the axis along which samples are joined; None if the tensor does not
            depend on the sample.
    """

    size: int
    axes: Mapping[str, int | None] = field(default_factory=dict)

    def separate(self, name: str, value: Tensor, samples: int) -> Tensor:
        """Bring a tapped tensor into the form ``[samples, *shape of the tensor in one feed]``.

        What is no tensor (a sequence, a map, an optional that is empty) comes back as it is.

        Raises:
            SippError: the tensor does not fall apart into so many samples.
        """
        if not isinstance(value, np.ndarray):
            return value  # never joined, see `plan_batching`
        if self.size == 1:
            return value[None]
        axis = self.axes[name]
        if axis is None:
            return np.broadcast_to(value, (samples, *value.shape))
        if value.shape[axis] % samples:
            raise SippError(
                f"the size of {name!r} depends on the values of the samples, which cannot be told "
                "apart in a batch: run them one by one, with --batch-size 1 (batch_size=1)"
            )
        if axis == 0:
            return value.reshape(samples, -1, *value.shape[1:])
        return np.stack(np.split(value, samples, axis=axis))


@dataclass(frozen=True)
class Batch:
    """Tapped tensors of some samples, each ``[samples, *shape of the tensor in one feed]``."""

    samples: int
    tensors: Mapping[str, Tensor]


def plan_batching(
    model: Model,
    run: Tried,
    inputs: Sequence[InputSpec],
    feeds: Sequence[Feed],
    largest: int | None = None,
) -> Batching:
    """Find out by running whether samples can be joined, and how many.

    Two samples are run alone and together. Only if every tap of the joint run falls apart into
    those of the single runs are samples joined at all: the results then cannot depend on the
    batch size, whatever the graph does with its axes.

    Args:
        model: that is run. If it holds an If or a Loop, these may treat a batch in another way than
            each of its samples, and nothing is joined.
        run: runs feeds, and gives per stage and feed the tensors that will be asked for.
        inputs: what the model takes.
        feeds: the first two feeds of the source, or one.
        largest: most samples at a time, None to choose by the size of the tensors.
    """
    if len(feeds) < 2 or largest == 1 or has_control_flow(model.proto):
        return Batching(1)
    if not _joinable(feeds[0], feeds[1], inputs):
        return Batching(1)
    axes: dict[str, int | None] = {}
    sizes: dict[str, int] = {}
    try:
        for first, second, joint in run([*feeds, join(feeds, inputs)]):
            for name in first:
                one = first[name]
                found, axis = _sample_axis(one, second[name], joint[name])
                if name in model.unseen:
                    found, axis = True, None
                if not found:
                    return Batching(1)
                axes[name], sizes[name] = axis, one.nbytes
    except SippError:  # a dimension that claims to be dynamic and is not
        return Batching(1)
    size = sum(sizes.values())
    fitting = max(1, min(MAX_BATCH, BATCH_BYTES // max(1, size)))
    return Batching(fitting if largest is None else largest, axes)


def batches(
    runner: Runner, feeds: Iterable[Feed], batching: Batching, inputs: Sequence[InputSpec]
) -> Iterator[Batch]:
    """Run all feeds, joined as planned, and yield their tapped tensors.

    Args:
        runner: runs them.
        feeds: the samples.
        batching: planned for these tensors.
        inputs: what the model takes.

    Raises:
        SippError: the runtime fails on an input.
    """
    for samples, feed in joined(feeds, batching, inputs):
        tensors = runner.run(feed)
        separated = {n: batching.separate(n, value, samples) for n, value in tensors.items()}
        yield Batch(samples, separated)


def joined(
    feeds: Iterable[Feed], batching: Batching, inputs: Sequence[InputSpec]
) -> Iterator[tuple[int, Feed]]:
    """Join successive feeds as planned.

    Yields:
        Number of samples, and one feed for all of them.
    """
    for group in grouped(feeds, batching, inputs):
        yield len(group), join(group, inputs)


def grouped(
    feeds: Iterable[Feed], batching: Batching, inputs: Sequence[InputSpec]
) -> Iterator[list[Feed]]:
    """Successive feeds that are joined as planned."""
    group: list[Feed] = []
    for feed in feeds:
        full = len(group) == batching.size
        if group and (full or not _joinable(group[0], feed, inputs)):
            yield group
            group = []
        group.append(feed)
    if group:
        yield group


def _joins(spec: InputSpec, value: Tensor) -> bool:
    """Whether an input is joined along its leading axis, rather than shared by all samples."""
    return value.ndim > 0 and spec.fixed_batch is None


def _joinable(first: Feed, second: Feed, inputs: Sequence[InputSpec]) -> bool:
    pairs = [(spec, first[spec.name], second[spec.name]) for spec in inputs]
    return any(_joins(spec, a) for spec, a, _ in pairs) and all(
        a.shape == b.shape if _joins(spec, a) else np.array_equal(a, b) for spec, a, b in pairs
    )


def join(feeds: Sequence[Feed], inputs: Sequence[InputSpec]) -> Feed:
    """One feed for several that can be joined."""
    if len(feeds) == 1:
        return feeds[0]
    return {
        spec.name: np.concatenate([feed[spec.name] for feed in feeds])
        if _joins(spec, feeds[0][spec.name])
        else feeds[0][spec.name]
        for spec in inputs
    }


def _sample_axis(first: Any, second: Any, joint: Any) -> tuple[bool, int | None]:
    """Find the axis along which a joint tensor is its parts, end to end."""
    if not all(isinstance(value, np.ndarray) for value in (first, second, joint)):
        return False, None
    if first.shape != second.shape or first.ndim != joint.ndim or joint.size == 0:
        return False, None  # an empty tensor tells nothing, and may be longer for other samples
    for axis in range(first.ndim):
        parts = np.concatenate([first, second], axis=axis)
        if parts.shape == joint.shape and _close(parts, joint):
            return True, axis
    return bool(first.shape == joint.shape and _close(first, joint) and _close(second, joint)), None


def _close(a: Tensor, b: Tensor) -> bool:
    if a.dtype.kind not in "fV":
        return np.array_equal(a, b)
    a, b = a.astype(np.float64), b.astype(np.float64)
    scale = float(np.max(np.abs(a), initial=0.0, where=np.isfinite(a)))
    return bool(np.allclose(a, b, rtol=1e-3, atol=1e-4 * scale, equal_nan=True))
