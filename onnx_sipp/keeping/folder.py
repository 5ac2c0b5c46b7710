"""Finished parts of a run in the work folder, so that an interrupted run goes on.

The folder belongs to one run: the same model, samples and options find what is there, others are
refused. It goes when the run is done.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from onnx_sipp.calibration.npy_stream import reading
from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.files import write_together
from onnx_sipp.keeping.archive import understanding
from onnx_sipp.keeping.fingerprint import Fingerprint

__all__ = ["RunFolder"]

T = TypeVar("T")

_NAME = "onnx-sipp-run"
_ABOUT = "run.json"
_MOST_BYTES = 16 << 20


class RunFolder:
    """Where the parts of one run are kept.

    Args:
        workdir: folder that it is made in, or found.
        run: what the run is about.

    Raises:
        UsageError: there are parts of another run.
        SippError: what is there cannot be read.
    """

    def __init__(self, workdir: Path, run: Fingerprint) -> None:
        self._folder, self._run = workdir / _NAME, run
        self._about = self._folder / _ABOUT
        if self._about.exists():
            self._refuse_other(self._found())

    def part(self, name: str, read: Callable[[Path], T]) -> T | None:
        """A part that was finished; None if there is none, or it is damaged.

        Args:
            name: of its file.
            read: reads the file.
        """
        path = self._folder / name
        if not path.is_file():
            return None
        try:
            return read(path)
        except SippError:  # it is made anew
            return None

    def keep(self, name: str, write: Callable[[Path], None]) -> None:
        """Write a part that is finished.

        Args:
            name: of its file.
            write: writes it to a path.

        Raises:
            SippError: it cannot be written.
        """
        try:
            write(self._place(name))
        except SippError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            write(self._place(name))  # the same run beside this one was done, and removed it

    def _place(self, name: str) -> Path:
        """Where a part is to be written; the folder is made, and says what it is about."""
        if not self._about.exists():
            try:
                self._folder.mkdir(exist_ok=True)
            except OSError as error:
                raise SippError(f"cannot make {str(self._folder)!r}: {error.strerror}") from error
            made = json.dumps(asdict(self._run), indent=1, default=str).encode()
            write_together([(self._about, lambda out: out.write(made))])
        return self._folder / name

    def forget(self) -> None:
        """Remove everything: the run is done."""
        gone = self._folder.with_name(f".onnx-sipp-{uuid4().hex}.tmp")
        try:
            self._folder.rename(gone)  # the same run beside this one finds it whole, or not at all
        except OSError:
            gone = self._folder
        shutil.rmtree(gone, ignore_errors=True)

    def _found(self) -> Fingerprint:
        with reading(str(self._about)), self._about.open("rb") as stream:
            text = stream.read(_MOST_BYTES)
        with understanding(self._about):
            values: dict[str, Any] = json.loads(text)
            return Fingerprint(
                str(values["model"]), str(values["data"]), dict(values["options"]),
                str(values["version"]),
            )  # fmt: skip

    def _refuse_other(self, kept: Fingerprint) -> None:
        plain = json.loads(json.dumps(self._run.options, default=str))
        told = kept.differences(replace(self._run, options=plain))
        if told:
            raise UsageError(
                f"{self._folder} holds what a run of something else has left: this one has "
                f"{', '.join(told)}. To go on with that run, repeat it as it was; else remove that "
                "folder, or take another --workdir"
            )
