"""Prune the models of a folder laid out as Transformers.js and Optimum have it.

    python prune_folder.py FOLDER NEW_FOLDER --calib samples.npz --sparsity 0.5 [--int8]

Such a folder holds the configuration, the tokenizer, and models, ``onnx/*.onnx`` or ``*.onnx``. All
that is no model is copied; every model is pruned under its name, and with ``--int8`` also as
``<name>_quantized.onnx``, which is what Transformers.js loads for ``dtype: "q8"``.
"""

import shutil
from pathlib import Path
from typing import Any

import click

import onnx_sipp


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("new_folder", type=click.Path(path_type=Path))
@click.option(
    "--calib", type=click.Path(exists=True), help="Sample inputs, the same for all models."
)
@click.option("--sparsity", type=float, default=0.5, show_default=True)
@click.option("--int8", is_flag=True, help="Write quantised models, too.")
def main(folder: Path, new_folder: Path, calib: str | None, sparsity: float, int8: bool) -> None:
    """Copy a folder with its models pruned."""
    models = [path for path in sorted(folder.rglob("*.onnx")) if "_quantized" not in path.stem]
    if not models:
        raise click.UsageError(f"there is no .onnx file in {folder}")
    shutil.copytree(folder, new_folder, ignore=shutil.ignore_patterns("*.onnx", "*.onnx[._]data"))
    for path in models:
        target = new_folder / path.relative_to(folder)
        runs: list[tuple[Path, dict[str, Any]]] = [(target, {})]
        if int8:
            runs.append((target.with_stem(f"{path.stem}_quantized"), {"quantize": "int8"}))
        for file, options in runs:
            try:
                result = onnx_sipp.prune(path, calib, sparsity=sparsity, **options)
            except onnx_sipp.SippError as error:
                raise click.ClickException(f"{path}: {error}") from error
            report = result.save(file)
            error = report.outputs[0].relative_error if report.outputs else None
            told = "" if error is None else f", output error {error:.3g}"
            click.echo(f"{file}: {report.sparsity:.1%} zeros{told}")


if __name__ == "__main__":
    main()
