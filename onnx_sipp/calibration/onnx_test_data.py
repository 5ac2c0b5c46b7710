"""Calibration data as ONNX test data: ``test_data_set_*/input_*.pb``."""

from __future__ import annotations

__all__ = ["OnnxTestData", "find_test_data"]

import re
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from onnx_sipp.calibration.checks import conform
from onnx_sipp.calibration.npy_stream import reading
from onnx_sipp.errors import SippError
from onnx_sipp.files import read_plain
from onnx_sipp.graph.claims import MOST_MESSAGE_BYTES, refuse_dims

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from onnx_sipp.calibration.specs import Array, Feed, InputSpec


def find_test_data(folder: Path) -> list[Path]:
    """Find the ONNX test data that a folder is or contains.

    Args:
        folder: ``test_data_set_0`` or the like, or the folder around such.

    Returns:
        The folders that hold ``input_*.pb``, in the order of their numbers.
    """
    if _input_files(folder):
        return [folder]
    sets = [path for path in folder.glob("test_data_set_*") if _input_files(path)]
    return sorted(sets, key=_by_number)


def _input_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("input_*.pb"), key=_by_number)


def _by_number(path: Path) -> tuple[int, str]:
    number = re.search(r"(\d+)$", path.name.removesuffix(".pb"))
    return (int(number[1]) if number else 0), path.name


class OnnxTestData:
    """One feed per test data set, read when it is asked for.

    Attributes:
        description: What the data is, for people.
        synthetic: Always False.
        notes: What the user must be told.
        restarts: Every set stands for itself.
    """

    synthetic = False
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        label: str,
        folders: Sequence[Path],
        specs: Sequence[InputSpec],
        num_samples: int | None = None,
    ) -> None:
        """Check every file that will be used.

        Args:
            label: The name of the data, for people.
            folders: The test data sets.
            specs: The inputs of the model.
            num_samples: The most sets to use.

        Raises:
            SippError: If a file is damaged or missing, or cannot be fed.
        """
        self._folders, self._specs = folders[:num_samples], specs
        count = len(folders)
        first = f"first {num_samples} of " if len(self) < count else ""
        self.description = f"{label} ({first}{count} test data set{'s' if count > 1 else ''})"
        for _ in self:
            pass

    def __len__(self) -> int:
        return len(self._folders)

    def __iter__(self) -> Iterator[Feed]:
        return map(self._feed, self._folders)

    @property
    def restarts(self) -> tuple[int, ...]:
        """See above."""
        return tuple(range(len(self)))

    def _feed(self, folder: Path) -> Feed:
        files = _input_files(folder)
        specs = self._specs
        if len(files) != len(specs):
            specs = [spec for spec in specs if not spec.optional]
        if len(files) != len(specs):
            names = ", ".join(repr(spec.name) for spec in self._specs)
            raise SippError(
                f"{folder}: holds {len(files)} input_*.pb, but the model has "
                f"{len(self._specs)} inputs: {names}. Give one file for each, in this order"
            )
        return {
            spec.name: conform(_read_tensor(file), spec, str(file))
            for spec, file in zip(specs, files, strict=True)
        }


def _read_tensor(path: Path) -> Array:
    tensor = onnx.TensorProto()
    with reading(str(path)):
        data = read_plain(path, MOST_MESSAGE_BYTES)
        try:
            tensor.ParseFromString(data)
        except DecodeError as error:
            raise SippError(f"{path}: is no ONNX tensor or is damaged: {error}") from error
        if not data or tensor.data_type == onnx.TensorProto.UNDEFINED:
            raise SippError(f"{path}: is empty or no ONNX tensor")
        # Where the data would lie is the file's word; nothing outside it is opened.
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise SippError(f"{path}: keeps its data in another file, which is not read")
        refuse_dims(tensor)
        return onnx.numpy_helper.to_array(tensor)
