"""Exit with a code of its own where the user's metric falls too far."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from onnx_sipp.errors import UsageError

__all__ = ["EXIT_CODE", "DropLimit"]

EXIT_CODE = 3


@dataclass(frozen=True)
class DropLimit:
    """How far the number of a function may fall.

    Attributes:
        drop: that is allowed.
        script: ``file.py:function``.
    """

    drop: float
    script: str

    @classmethod
    def of(cls, drop: float | None, options: dict[str, Any]) -> DropLimit | None:
        """The limit, None if there is none; takes the script out of the options if it is for this.

        Raises:
            UsageError: there is no script, or the drop is no number from 0 on.
        """
        if drop is None:
            return None
        script = options.get("eval_script")
        if script is None:
            raise UsageError("--fail-if-drop goes with --eval-script, which gives the number")
        if not 0 <= drop < float("inf"):
            raise UsageError(f"--fail-if-drop must be a number from 0 on, not {drop}")
        if options.get("max_drop") is None:
            del options["eval_script"]
        return cls(drop, script)

    def check(self, dense: Path, pruned: Path, options: Any) -> None:
        """Say what became of the number, and exit if it fell too far.

        Args:
            dense: file of the model before.
            pruned: file of the model after.
            options: of the run, checked.

        Raises:
            UsageError: there is no such script or function.
            SippError: it fails, or gives no number.
        """
        from onnx_sipp.comparing.metric import load_metric  # noqa: PLC0415 - only once it is needed

        libraries = [Path(library) for library in options.custom_ops]
        judge = load_metric(self.script, options.providers, libraries)
        before, after = judge(dense), judge(pruned)
        click.echo(f"{judge.name}: {before:.5g} before, {after:.5g} after pruning", err=True)
        if not before - after <= self.drop:
            click.echo(
                f"onnx-sipp: {judge.name} fell by {before - after:.5g}, more than {self.drop:g}; "
                "everything was written all the same",
                err=True,
            )
            sys.exit(EXIT_CODE)
