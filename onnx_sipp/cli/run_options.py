"""Options of all commands that prune."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import click

from onnx_sipp.choices import COMPENSATIONS, DEFAULT_METHOD
from onnx_sipp.cli.values import byte_size, input_shape, state_map, state_pair
from onnx_sipp.memory import DEFAULT_LIMIT
from onnx_sipp.pruning.error_budget import FLOOR
from onnx_sipp.pruning.methods import METHODS, REFIT_ALLOCATIONS
from onnx_sipp.pruning.selection import ALLOCATIONS

__all__ = ["data_options", "method_options", "run_options", "runtime_options", "statistics_option"]

F = TypeVar("F", bound=Callable[..., Any])


def run_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the command line gave, as the library takes it."""
    options = dict(given)
    providers = options["providers"]
    options["input_shapes"] = dict(options["input_shapes"])
    options["states"] = state_map(options["states"])
    options["providers"] = providers.split(",") if providers else None
    return options


def _added(options: Sequence[Callable[[F], F]], function: F) -> F:
    """Add options in the order that help is to show them in."""
    return reduce(lambda made, option: option(made), reversed(options), function)


def _early(ctx: click.Context, parameter: click.Parameter, scheduler: str | None) -> str | None:
    """Have what workers of this machine need be loaded while this process loads what it needs."""
    del ctx, parameter
    if scheduler and find_spec("distributed") is not None:
        from onnx_sipp.cluster.forks import get_ready, workers_here  # noqa: PLC0415 - few runs do

        if workers_here(scheduler) is not None:
            get_ready()
    return scheduler


def data_options(function: F) -> F:
    """Add the options about calibration data."""
    options = [
        click.option(
            "--calib",
            "--load-inputs",
            type=click.Path(path_type=Path),
            metavar="PATH",
            help="Sample inputs: .npz, .npy, a folder of them, or ONNX test data. "
            "[default: test data beside the model, else made-up inputs]",
        ),
        click.option(
            "--data-loader-script",
            metavar="FILE",
            help="Python file with load_data(), or FILE:FUNC; it is run.",
        ),
        click.option(
            "--num-samples", type=int, metavar="N", help="Samples to use. [default: up to 512]"
        ),
        click.option(
            "--input-shapes",
            multiple=True,
            type=input_shape,
            metavar="NAME:D,D,…",
            help="Shape of made-up inputs, e.g. x:1,3,224,224; repeatable.",
        ),
        click.option(
            "--mask-input",
            metavar="NAME",
            help="Input that is 0 at padding. [default: attention_mask]",
        ),
        click.option(
            "--state",
            "states",
            multiple=True,
            type=state_pair,
            metavar="IN=OUT",
            help="Feed output OUT back to input IN; repeatable. [default: by names]",
        ),
        click.option(
            "--state-reset",
            type=int,
            metavar="N",
            help="Samples between resets of the states. [default: those of a file]",
        ),
    ]
    return _added(options, function)


def statistics_option(function: F) -> F:
    """Add the option that names statistics."""
    return click.option(
        "--statistics",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="What `onnx-sipp calibrate` measured, instead of measuring it.",
    )(function)


def method_options(function: F) -> F:
    """Add the options about how weights are chosen and refitted."""
    options = [
        click.option(
            "--method",
            type=click.Choice(list(METHODS)),
            metavar="NAME",
            help=f"Choice of weights: {', '.join(METHODS)}. [default: {DEFAULT_METHOD}]",
        ),
        click.option(
            "--allocation",
            type=click.Choice([*REFIT_ALLOCATIONS, *ALLOCATIONS, "sipp"]),
            metavar="NAME",
            help=f"Budget: {', '.join([*REFIT_ALLOCATIONS, *ALLOCATIONS, 'sipp'])}.",
        ),
        click.option(
            "--compensate",
            type=click.Choice(COMPENSATIONS),
            metavar="HOW",
            help=f"Refit: {', '.join(COMPENSATIONS)}. [default: as fits the method]",
        ),
        click.option(
            "--rounds", type=int, metavar="R", help="Prune and refit in R steps. [default: 1]"
        ),
        click.option(
            "--new-biases/--no-new-biases",
            default=True,
            help="Let the refit add biases to nodes that have none. [default: it may]",
        ),
        click.option(
            "--floor",
            type=float,
            metavar="SHARE",
            help=f"Share of its weights that every layer keeps. [default: {FLOOR}]",
        ),
        click.option(
            "--delta", type=float, metavar="D", help="Failure probability of the certificate."
        ),
    ]
    return _added(options, function)


def runtime_options(function: F) -> F:
    """Add the options about the machine."""
    options = [
        click.option("--batch-size", type=int, metavar="N", help="Most samples at a time."),
        click.option("--threads", type=int, metavar="N", help="Threads. [default: all cores]"),
        click.option(
            "--memory-limit",
            type=byte_size,
            metavar="SIZE",
            help=f"Memory that the process may take. [default: {DEFAULT_LIMIT >> 20}MB]",
        ),
        click.option(
            "--workdir",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Folder for temporary files, and to go on from if interrupted.",
        ),
        click.option(
            "--custom-ops",
            multiple=True,
            type=click.Path(path_type=Path),
            metavar="LIB",
            help="Library with operators of your own; it is run. Repeatable.",
        ),
        click.option(
            "--scheduler",
            callback=_early,
            metavar="WHERE",
            help="Share the work: local:N processes, or Dask's tcp://host:8786.",
        ),
        click.option("--providers", metavar="A,B", help="onnxruntime execution providers."),
        click.option(
            "--seed",
            type=int,
            default=0,
            show_default=True,
            metavar="N",
            help="Of everything random.",
        ),
    ]
    return _added(options, function)
