"""Calibration data from wherever it comes, as feeds that are ready to run."""

from __future__ import annotations

__all__ = [
    "Feed",
    "InputSpec",
    "Source",
    "held_out_mask",
    "input_specs",
    "load_script",
    "open_source",
]

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from onnx_sipp.calibration.checks import as_array, check_names
from onnx_sipp.calibration.feeds import FeedSource, ignored_note, snapshot
from onnx_sipp.calibration.npy_stream import open_npy, open_npz, reading
from onnx_sipp.calibration.onnx_test_data import OnnxTestData, find_test_data
from onnx_sipp.calibration.rows import MemoryRows, Rows, as_one_row
from onnx_sipp.calibration.scripts import ScriptFeeds, load_script
from onnx_sipp.calibration.specs import Feed, InputSpec, fix_shapes, input_specs
from onnx_sipp.calibration.synthetic import SyntheticSource
from onnx_sipp.calibration.table import TableSource
from onnx_sipp.errors import SippError, UsageError

_ACCEPTED = (
    "give a .npz file (one array per input, samples along the leading axis), a .npy file, a "
    "folder of those, or a folder with test_data_set_*/input_*.pb"
)


class Source(Protocol):
    """Feeds for a model: complete, checked, and the same each time they are gone through.

    Every feed has an array of the right type for every input and can be run as it is, once states
    that it lacks are added. Where data is cut into feeds, the leading axis is 1, or the batch that
    the model fixes.
    """

    @property
    def description(self) -> str:
        """What the data is, for people."""

    @property
    def synthetic(self) -> bool:
        """Whether it is made up."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user must be told."""

    @property
    def restarts(self) -> tuple[int, ...]:
        """Feeds with which a new sequence begins, as far as the source can tell."""

    def __len__(self) -> int:
        """The number of feeds."""

    def __iter__(self) -> Iterator[Feed]:
        """Go through the feeds from the start."""


def open_source(
    calibration: Any,
    specs: Sequence[InputSpec],
    *,
    model_path: Path | None = None,
    num_samples: int | None = None,
    seed: int = 0,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Source:
    """Open calibration data and check all of it against the model.

    Args:
        calibration: One of

            * None: the ONNX test data beside the model if there is any, else random inputs;
            * the path of a ``.npz`` file, a ``.npy`` file, a folder of those, or a folder that
              is or contains ``test_data_set_*/input_*.pb``;
            * an array (for a model with one input) or a dict of arrays, samples along the
              leading axis;
            * an iterable of complete feeds, each a dict of arrays, or an onnxruntime
              ``CalibrationDataReader``. A sequence (``len()`` and ``[i]``) is asked for one feed
              at a time; of anything else the feeds are kept in memory.
        specs: The inputs of the model. Data may lack those that are optional; those of which an
            array holds one value come with the first feed.
        model_path: Where the model is.
        num_samples: The most feeds to use, all if None; of random inputs, 32 if None.
        seed: Of the random inputs.
        input_shapes: Full shapes, batch included, by input name; inputs may be left out. They
            set the shapes of random inputs, and data must have them.

    Returns:
        The feeds.

    Raises:
        UsageError: If there is no such data, or an argument is wrong.
        SippError: If the data cannot be read or does not fit the model; the message says which
            file, which sample and which input, what was expected, and how to mend it.
    """
    if not specs:
        raise SippError("the model has no input that can be fed, so it cannot be calibrated")
    if num_samples is not None and num_samples < 1:
        raise UsageError(f"the number of samples must be at least 1, but it is {num_samples}")
    fixed = fix_shapes(specs, input_shapes)
    if calibration is None:
        found = find_test_data(model_path.parent) if model_path else []
        if not found:
            return SyntheticSource(specs, num_samples, seed, input_shapes)
        return _open_beside(found, fixed, num_samples)
    if isinstance(calibration, str | os.PathLike):
        return _open_path(Path(calibration), fixed, num_samples)
    return _open_values(calibration, fixed, num_samples)


def _open_beside(
    folders: Sequence[Path], specs: Sequence[InputSpec], num_samples: int | None
) -> Source:
    """Open the test data beside the model; nobody named it, so an error says why it is read."""
    try:
        return OnnxTestData("test data beside the model", folders, specs, num_samples)
    except SippError as error:
        raise SippError(
            f"{error} (this test data lies beside the model and is used because no "
            "calibration data is given)"
        ) from error


def _open_path(path: Path, specs: Sequence[InputSpec], num_samples: int | None) -> Source:
    if not path.exists():
        raise UsageError(f"{path}: there is no such file or folder; {_ACCEPTED}")
    label = path.resolve().name
    in_folder = path.is_dir()
    files = [path]
    if in_folder:
        test_data = find_test_data(path)
        if test_data:
            return OnnxTestData(label, test_data, specs, num_samples)
        with reading(str(path)):
            files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
    files = [file for file in files if file.suffix.lower() in {".npy", ".npz"}]
    if not files:
        what = "holds no calibration data" if in_folder else "is no calibration data"
        raise UsageError(f"{path}: {what}; {_ACCEPTED}")
    tables, ignored = [], dict[str, None]()
    for file in files:
        arrays, extra = _read_table(file, specs, in_folder=in_folder)
        tables.append(arrays)
        ignored |= dict.fromkeys(extra)
    notes = [ignored_note(label, ignored)] if ignored else []
    return TableSource(label, tables, specs, num_samples, notes)


def _read_table(
    file: Path, specs: Sequence[InputSpec], *, in_folder: bool
) -> tuple[dict[str, Rows], list[str]]:
    """Open the arrays of one file, and name those that the model does not take."""
    if file.suffix.lower() == ".npz":
        arrays, present = open_npz(file, [spec.name for spec in specs])
        return arrays, check_names(present, specs, str(file))
    spec = _only_input(specs, str(file))
    rows = open_npy(file)
    single_rank = max(0, len(spec.shape) - 1) if spec.shape is not None else None
    if in_folder and len(rows.shape) == single_rank and 0 not in rows.shape:
        rows = as_one_row(rows)  # a file per sample needs no batch axis
    return {spec.name: rows}, []


def _only_input(specs: Sequence[InputSpec], where: str) -> InputSpec:
    needed = [spec for spec in specs if not spec.optional]
    if len(needed) > 1:
        names = ", ".join(repr(spec.name) for spec in needed)
        raise SippError(
            f"{where}: is one array, but the model has {len(needed)} inputs: {names}. Give one "
            "array for each, in a .npz file or a dict"
        )
    return needed[0]


def _open_values(calibration: Any, specs: Sequence[InputSpec], num_samples: int | None) -> Source:
    if isinstance(calibration, Mapping):
        label = "arrays in memory"
        extra = check_names(calibration.keys(), specs, label)
        given = [spec for spec in specs if spec.name in calibration]
        arrays = {spec.name: _memory_rows(calibration[spec.name], spec, label) for spec in given}
        notes = [ignored_note(label, extra)] if extra else []
        return TableSource(label, [arrays], specs, num_samples, notes)
    if hasattr(calibration, "__array__"):
        label = "array in memory"
        spec = _only_input(specs, label)
        table = {spec.name: _memory_rows(calibration, spec, label)}
        return TableSource(label, [table], specs, num_samples)
    label = "feeds in memory"
    if isinstance(calibration, ScriptFeeds):
        label = calibration.label
    elif callable(getattr(calibration, "get_next", None)):
        label = type(calibration).__name__
        calibration = iter(calibration.get_next, None)
    is_sequence = hasattr(calibration, "__len__") and hasattr(calibration, "__getitem__")
    if isinstance(calibration, bytes) or not (is_sequence or isinstance(calibration, Iterable)):
        raise UsageError(
            f"calibration data cannot be a {type(calibration).__name__}: give a path, an array, "
            "a dict of arrays, an iterable of such dicts, or a CalibrationDataReader"
        )
    if not is_sequence:
        calibration = snapshot(calibration, num_samples)
    return FeedSource(calibration, specs, label, num_samples)


def _memory_rows(value: Any, spec: InputSpec, label: str) -> Rows:
    return MemoryRows(as_array(value, spec, label), label)


def held_out_mask(count: int, fraction: float = 0.2) -> npt.NDArray[np.bool_]:
    """Choose the feeds that calibration does not see and fidelity is measured on.

    One feed is taken from each of as many equal stretches as feeds are held out. Where in its
    stretch moves on from one to the next, so that data in a periodic order (class 0, 1, 2, ...,
    0, 1, 2, ...) does not lose the same few classes each time.

    Args:
        count: The number of feeds.
        fraction: The part to hold out.

    Returns:
        One bool per feed, True where it is held out; from two feeds on, at least one is and at
        least one is not.
    """
    mask = np.zeros(count, np.bool_)
    if count < 2:
        return mask
    held = min(max(1, round(count * fraction)), count - 1)
    borders = np.arange(held + 1) * count // held
    # Multiples of the golden ratio spread evenly over [0, 1) and follow no period.
    place = (0.5 + np.arange(held) * (5**0.5 - 1) / 2) % 1
    mask[borders[:-1] + (place * np.diff(borders)).astype(np.intp)] = True
    return mask
