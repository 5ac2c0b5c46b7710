"""The page of all these measurements."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import onnxruntime as ort

import onnx_sipp
from bench.scaling import Curve, table

__all__ = ["Measured", "page"]

TEXT = """\
# Speed

What a run costs: beside other tools, beside the formula it computes, as models and data grow, and
beside what the machine can do. Seconds are wall time on {cores} cores ({machine}): the median of
up to {repeats} rounds, of which none begins after {patience:g} s. In a round the works that are
compared follow each other, so that what else the machine does falls on all of them alike. In the
minute before, {load} processes were ready to run on average.

## Beside other tools

The same models, and the same samples for tools that use any, from a model in memory to a model in
memory. onnxsim {onnxsim} has three ways to put zeros anywhere (magnitude, Wanda, SparseGPT; no
Optimal Brain Compression); it gives every layer the same share. Polygraphy {polygraphy}
(`polygraphy surgeon prune`) makes 2:4 only, without data, and calls itself a help for functional
tests.

- *error*: ‖pruned − dense‖ / ‖dense‖ of the output, on samples that took no part in pruning;
- *zeros reached*: share of zeros in the weights that onnx-sipp prunes, and what a tool leaves
  alone;
- *times ours*: seconds as a multiple of those of our row with the same kind of zeros and the
  default budget.

Magnitude and Wanda look at every weight once, SparseGPT inverts H once and goes from input to
input. onnx-sipp chooses by measured error, solves least squares for every layer several times,
and measures and reports at the end what it did. What that buys is in the column *error*;
[accuracy.md](accuracy.md) tells what is done, [results-accuracy.md](results-accuracy.md) has
accuracies and other sparsities.

{rivals}
## Beside the formula

Sensitivities (see [methods.md](methods.md)) as the paper's formula has them are an array of
neurons × inputs for every patch, `g = w·a / Σ w·a`, of which the maximum is kept (`max`), or the
mean over the patches of a sample and then the maximum (`mean`). The authors' implementation goes
through the neurons instead, with an array of inputs × patches for each. Both stand here in plain
numpy; onnx-sipp takes |w| out of the fraction, which leaves matrix products. All have one thread.
Weights and inputs are random, of both signs. *equal*: all three agree to a relative 1e-4.

{formula}
## As models and data grow

MLPs with random weights and a Relu between layers, half of the weights to be zero, correlated
random samples. seconds ≈ c · sizeᵖ; the exponents p are fitted to all sizes, and to the last
three.

![Seconds against samples, width and depth]({plot})

{scaling}
The exact greedy order of removal is cubic in the inputs of a neuron. Layers where it would take
too long are pruned gradually instead (see [accuracy.md](accuracy.md)), so time against width is
no straight line. The default budget tries its plans on at most 256 samples. A tool that was
expected to take more than {limit:g} s, by its last two sizes, is left out from there on (–).

## Beside the machine's limits

The parts of a run that work on large arrays, by the project's own functions, with {threads}
threads as in a run. The limit of arithmetic is a plain matrix product of numpy; that of reading,
a copy in memory; that of writing, a plain write of as many bytes and `fsync`, beside the file that
is then replaced, as onnx-sipp does it. Files that are read lie in the system's cache.

- In a matrix product a multiplication and an addition are one instruction. In a (max, ×) product
  they are two, so half of the limit is the most that can be reached.
- Of the symmetric H, one half counts as work, whatever is computed. Products are float32; they
  are added up in float64, but for very wide inputs.
- A step of the refit is one product with H, and some passes over the weights that do not count.
- A removal in the exact greedy order takes a column of the inverse, from which what went before is
  taken out: two flops for every number that is read.
- What a write takes depends on the pages and blocks that the system has just got free: shares of
  that limit above 100 % come from there.
- Of a model with external data, what stays is copied, and new weights are written in between; here
  all are new. A model of one file is put together in memory before it is written.

{limits}
Made by `{command}` with onnx-sipp {version}, numpy {numpy}, onnxruntime {ort}.
"""


@dataclass(frozen=True)
class Measured:
    """All that the page shows.

    Attributes:
        rivals: Table.
        formula: Table.
        curves: Of growth.
        limits: Table.
    """

    rivals: str
    formula: str
    curves: Sequence[Curve]
    limits: str


def page(
    measured: Measured,
    plot: str,
    arguments: Sequence[str],
    *,
    load: float,
    repeats: int,
    patience: float,
    limit: float,
    threads: int,
) -> str:
    """Returns the text of ``docs/results-speed.md``.

    Args:
        measured: What was found.
        plot: Name of the image beside the page.
        arguments: Of the command, without paths of this machine.
        load: Processes that were ready to run before.
        repeats: Rounds, at most.
        patience: Seconds after which no round begins.
        limit: Seconds that a run may be expected to take.
        threads: Of the parts.
    """
    sections = [
        f"### {curve.title.capitalize()}: {curve.fixed}\n\n{table(curve)}"
        for curve in measured.curves
    ]
    return TEXT.format(
        rivals=measured.rivals,
        formula=measured.formula,
        scaling="\n".join(sections),
        limits=measured.limits,
        plot=plot,
        command=shlex.join(["python", "tools/bench_all.py", *arguments]),
        cores=os.cpu_count(),
        machine=platform.machine(),
        load=f"{load:.1f}",
        repeats=repeats,
        patience=patience,
        limit=limit,
        threads=threads,
        onnxsim=version("onnxsim"),
        polygraphy=version("polygraphy"),
        version=onnx_sipp.__version__,
        numpy=np.__version__,
        ort=ort.__version__,
    )
