"""Statistics in a file: what calibration told of every weight, and what it was measured on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.keeping.archive import Archive, Member, understanding, write_archive
from onnx_sipp.measures import Measured, PatchCount, Sensitivity
from onnx_sipp.pruning.importance import IMPORTANCES
from onnx_sipp.pruning.methods import METHODS
from onnx_sipp.statistics.sensitivity import Reduction
from onnx_sipp.store import TensorStore
from onnx_sipp.weights import Weight

__all__ = ["About", "StatisticsFile", "write_statistics"]

_FORM = "onnx-sipp statistics 1"
_FLOAT32 = np.dtype(np.float32)


@dataclass(frozen=True)
class About:
    """What statistics were measured on.

    Attributes:
        model: digest of the model.
        model_name: of its file, for people.
        data: digest of all samples, those that are held out included.
        source: where the samples come from, for people.
        samples: those to calibrate on.
        held_out: the others.
        observed: how many of the calibration samples the statistics are of.
        mask: input that tells padding from data, None if there is none.
    """

    model: str
    model_name: str
    data: str
    source: str
    samples: int
    held_out: int
    observed: int
    mask: str | None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> About:
        """Read what `asdict` has made, and check its types."""
        made = cls(**{field.name: values[field.name] for field in fields(cls)})
        texts = [made.model, made.model_name, made.data, made.source, made.mask or ""]
        counts = [made.samples, made.held_out, made.observed]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("a name is no text")
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise TypeError("a count is no number")
        return made


def write_statistics(path: Path, about: About, measured: Sequence[Measured]) -> None:
    """Write statistics, whole or not at all.

    Raises:
        SippError: writing failed.
    """
    rows = [
        {
            "name": found.weight.name,
            "layers": [layer.name for layer in found.weight.layers],
            "shape": list(found.weight.shape),
            "patches": [count.most for count in found.counts],
            "mean": found.mean is not None,
            "moment": None if found.second_moment is None else list(found.second_moment.shape),
        }
        for found in measured
    ]
    header = {"form": _FORM, "about": asdict(about), "weights": rows}
    write_archive(path, header, _members(measured))


def _members(measured: Sequence[Measured]) -> Iterator[Member]:
    for index, found in enumerate(measured):
        groups, outs, fan_in = found.weight.shape
        for name, values in (("max", found.maximum), ("mean", found.mean)):
            if values is not None:
                shape = (groups * outs, fan_in)
                yield Member(f"{index}.{name}", shape, _FLOAT32, _rows(values, found.weight))
        if found.second_moment is not None:
            yield Member.of(f"{index}.moment", found.second_moment)


def _rows(values: Sensitivity, weight: Weight) -> Iterator[NDArray[np.float32]]:
    return (values.block(n).reshape(-1, weight.shape[2]) for n in range(len(weight.blocks)))


class StatisticsFile:
    """Statistics that were written.

    Args:
        path: of the file.

    Attributes:
        about: what they were measured on.

    Raises:
        SippError: there is no such file, or it holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise UsageError(
                f"there are no statistics {str(path)!r}; `onnx-sipp calibrate` makes them"
            )
        self._archive = Archive(path, _FORM)
        with understanding(path):
            self.about = About.read(self._archive.header["about"])
            self._rows: dict[Any, tuple[int, Mapping[str, Any]]] = {
                (row["name"], tuple(row["layers"]), tuple(row["shape"])): (index, row)
                for index, row in enumerate(self._archive.header["weights"])
            }

    def refuse_other(self, now: About, method: str, *, same_data: bool) -> None:
        """Check that they are about what a run is about.

        Args:
            now: what the run would measure on.
            method: that they are to serve.
            same_data: whether the samples of the run have to be theirs; if not, all of theirs have
                to have been looked at.

        Raises:
            UsageError: they are about something else; says what differs.
        """
        own = self.about
        if own.model != now.model:
            told = f", {own.model_name}" if own.model_name else ""
            raise UsageError(f"the statistics in {self.path} are of another model{told}")
        if same_data and own.data != now.data:
            raise UsageError(
                f"the statistics in {self.path} were measured on other samples: {own.source}, not "
                f"{now.source}; give the samples, and the options about them, that they were "
                "calibrated with"
            )
        if own.mask != now.mask:
            raise UsageError(
                f"the statistics in {self.path} were measured with "
                f"{'no mask input' if own.mask is None else f'the mask input {own.mask!r}'}, but "
                f"this run has {'none' if now.mask is None else repr(now.mask)}; see --mask-input"
            )
        asked = now.observed if same_data else own.samples
        if own.observed != asked:
            raise UsageError(
                f"the statistics in {self.path} are of {own.observed} of {own.samples} samples, "
                f"but method {method} takes {asked} of them; calibrate with --method {method}"
            )

    def measured(
        self, weights: Sequence[Weight], method: str, store: TensorStore
    ) -> list[Measured]:
        """The statistics of some weights.

        Args:
            weights: of the model.
            method: that asks for them.
            store: keeps them.

        Raises:
            UsageError: some are missing.
            SippError: the file is damaged.
        """
        needs = IMPORTANCES[METHODS[method].importance]
        found = []
        for weight in weights:
            layers = tuple(layer.name for layer in weight.layers)
            known = self._rows.get((weight.name, layers, weight.shape))
            if known is None:
                raise UsageError(
                    f"the statistics in {self.path} lack the layer {layers[0]!r}: they were made "
                    "with other options about which layers are pruned; calibrate with those of "
                    "this run"
                )
            index, row = known
            with understanding(self.path):
                if (needs.mean and not row["mean"]) or (needs.moments and not row["moment"]):
                    raise UsageError(
                        f"the statistics in {self.path} lack what method {method} needs; "
                        f"calibrate with --method {method}"
                    )
                found.append(self._one(index, row, weight, store, needs.mean, needs.moments))
        return found

    def _one(
        self,
        index: int,
        row: Mapping[str, Any],
        weight: Weight,
        store: TensorStore,
        mean: bool,
        moments: bool,
    ) -> Measured:
        most = [int(count) for count in row["patches"]]
        if len(most) != len(weight.layers) or min(most) < 0:
            raise ValueError("patches of other layers")
        return Measured(
            weight,
            self._sensitivity(f"{index}.max", weight, "max", store),
            self._sensitivity(f"{index}.mean", weight, "mean", store) if mean else None,
            self._moment(f"{index}.moment", row, weight) if moments else None,
            [PatchCount(count) for count in most],
        )

    def _sensitivity(
        self, name: str, weight: Weight, reduction: Reduction, store: TensorStore
    ) -> Sensitivity:
        groups, outs, fan_in = weight.shape
        shapes = [block.view.matrix for block in weight.blocks]
        counts = [shape[0] * shape[1] for shape in shapes]
        parts = self._archive.parts(name, (groups * outs, fan_in), np.float32, counts)
        blocks = (part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))
        return Sensitivity.of_blocks(weight, reduction, store, self._checked(name, blocks))

    def _moment(self, name: str, row: Mapping[str, Any], weight: Weight) -> NDArray[np.float64]:
        groups, outs, fan_in = weight.shape
        shape = tuple(row["moment"])
        if shape not in ((groups, 1, fan_in), (groups, outs, fan_in)):
            raise ValueError(f"moments of the shape {shape}")
        (moment,) = self._checked(name, [self._archive.read(name, shape, np.float64)], np.inf)
        return moment

    def _checked(
        self, name: str, values: Iterable[NDArray[Any]], most: float = 1.0
    ) -> Iterator[NDArray[Any]]:
        for value in values:
            if not (np.isfinite(value).all() and (value >= 0).all() and (value <= most).all()):
                raise SippError(f"{self.path}: {name} holds impossible values; make it anew")
            yield value
