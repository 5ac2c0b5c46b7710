"""Measures what workers bring: seconds, bytes moved, memory, and whether results are equal.

    python tools/bench_cluster.py resnet20.onnx=calib.npz --out docs/results-cluster.md

Prunes every model, and MLPs that are made up here, in one process with one thread and on 1, 2
and 4 workers with one thread each, all on this machine; several times in turn, and the fastest
counts. Bytes moved are those that crossed the loopback interface, so nothing else should use it.
"""

import argparse
import hashlib
import pickle
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import distributed
import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper, numpy_helper

import onnx_sipp
from onnx_sipp.cluster.alone import Alone
from onnx_sipp.cluster.crew import Crew
from onnx_sipp.cluster.dask_pool import local_cluster

MLPS = {
    "mlp-1024": (256, 1024, 1024, 10),
    "mlp-2048": (784, 2048, 2048, 10),
    "mlp-4096": (1024, 4096, 4096, 10),
}
SAMPLES = 512


@dataclass(frozen=True)
class Run:
    """One run: seconds to start the workers and to prune, CPU seconds of the run and of workers."""

    start: float
    seconds: float
    cpu: float
    moved: int
    memory: int
    digest: str
    error: float


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL=CALIB")
    parser.add_argument("--workers", default="0,1,2,4", help="0 is one process without any")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def mlp(folder: Path, called: str) -> tuple[Path, Path]:
    """One of the MLPs, with inputs that depend on each other."""
    widths = MLPS[called]
    rng = np.random.default_rng(0)
    names = [f"w{n}" for n in range(len(widths) - 1)]
    tensors, nodes, value = [], [], "x"
    for name, (rows, columns) in zip(names, pairwise(widths), strict=True):
        weight = rng.standard_normal((rows, columns)).astype(np.float32) * (2 / rows) ** 0.5
        bias = np.zeros(columns, np.float32)
        tensors += [
            numpy_helper.from_array(weight, name),
            numpy_helper.from_array(bias, f"{name}b"),
        ]
        last = name == names[-1]
        made = "y" if last else f"{name}h"
        nodes.append(helper.make_node("Gemm", [value, name, f"{name}b"], [made], name=name))
        if not last:
            nodes.append(helper.make_node("Relu", [made], [f"{name}r"]))
            value = f"{name}r"
    graph = helper.make_graph(
        nodes, "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", widths[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", widths[-1]])], tensors,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / f"{called}.onnx")
    mixed = rng.standard_normal((SAMPLES, 64)) @ rng.standard_normal((64, widths[0]))
    np.savez(folder / f"{called}.npz", x=mixed.astype(np.float32))
    return folder / f"{called}.onnx", folder / f"{called}.npz"


def usage(dask_worker: Any = None) -> tuple[float, int]:
    """CPU seconds, and the most memory, of this process."""
    del dask_worker
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def loopback() -> int:
    """Bytes that were sent from this machine to itself."""
    return psutil.net_io_counters(pernic=True)["lo"].bytes_sent


def measured(model: Path, calib: Path, workers: int, samples: int) -> Run:
    """Prune once."""
    options: dict[str, Any] = {"num_samples": samples, "threads": 1}
    started = time.perf_counter()
    if not workers:
        before = usage()[0]
        result = onnx_sipp.prune(model, calib, **options)
        seconds = time.perf_counter() - started
        return told(result, 0.0, seconds, usage()[0] - before, 0, 0)
    with local_cluster(workers) as cluster, distributed.Client(cluster) as client:
        client.wait_for_workers(workers)
        begun, sent, before = time.perf_counter(), loopback(), usage()[0]
        cpu = sum(seconds for seconds, _ in client.run(usage).values())
        result = onnx_sipp.prune(model, calib, scheduler=cluster.scheduler_address, **options)
        seconds, sent = time.perf_counter() - begun, loopback() - sent
        found = client.run(usage).values()
        cpu = sum(seconds for seconds, _ in found) - cpu + usage()[0] - before
        return told(result, begun - started, seconds, cpu, sent, max(most for _, most in found))


@dataclass(frozen=True)
class Cost:
    """A task: of what kind, its CPU seconds, and the bytes of its result."""

    kind: str
    seconds: float
    size: int


def tried(model: Path, calib: Path, samples: int) -> tuple[list[Cost], float]:
    """What each task costs, by doing all of them here; and the CPU seconds of the rest."""
    costs: list[Cost] = []

    class Timed(Alone):
        def submit(self, function: Any, *given: Any) -> Any:
            begun = time.process_time()
            made = super().submit(function, *given)
            seconds = time.process_time() - begun
            costs.append(Cost(function.__name__, seconds, len(pickle.dumps(self.result(made)))))
            return made

        def has_room(self, running: int) -> bool:
            del running
            return False  # nothing is begun that may be in vain

    @contextmanager
    def hired(scheduler: str) -> Iterator[Crew]:
        del scheduler
        yield Crew(Timed)

    begun = time.process_time()
    with mock.patch("onnx_sipp.pipeline.hired", hired):
        onnx_sipp.prune(model, calib, num_samples=samples, threads=1)
    return costs, time.process_time() - begun - sum(cost.seconds for cost in costs)


def task_rows(name: str, costs: Sequence[Cost], own: float) -> list[str]:
    """The part of the table of tasks about one model."""
    lines = []
    for kind in dict.fromkeys(cost.kind for cost in costs):
        found = [cost for cost in costs if cost.kind == kind]
        seconds = [cost.seconds for cost in found]
        size = max(cost.size for cost in found) / 1e6
        lines.append(
            f"| {name} | {kind} | {len(found)} | {sum(seconds):.1f} | {max(seconds):.1f} "
            f"| up to {size:.1f} MB |"
        )
    return [*lines, f"| {name} | all else, in this process | | {own:.1f} | | |"]


def span(costs: Sequence[Cost], own: float, workers: int) -> float:
    """Seconds that the tasks take on workers that each have a core, and a machine of their own.

    The careful pass is begun beside the last trial, by the right budget. No core is lent.
    """
    of: dict[str, list[float]] = {}
    for cost in costs:
        of.setdefault(cost.kind, []).append(cost.seconds)
    total = own
    for kind in (
        "statistics",
        "merge_statistics",
        "sums",
        "of_weight",
        "merge_sums",
        "look",
    ):
        total += stretched(of.get(kind, []), [0.0] * workers)
    trials, careful = of.get("trial", []), sum(of.get("careful", []))
    free = [0.0] * workers
    stretched(trials, free)
    if not trials or workers == 1:
        return total + max(free) + careful
    return total + max(*free, min(free) + careful)


def stretched(seconds: Sequence[float], free: list[float]) -> float:
    """When the last of some tasks ends, if each goes to the worker that is free first."""
    for one in seconds:
        free.sort()
        free[0] += one
    return max(free)


def span_row(name: str, costs: Sequence[Cost], own: float) -> str:
    """The part of the table of the model about one model."""
    spans = [span(costs, own, workers) for workers in (1, 2, 4, 8)]
    cells = [f"{seconds:.1f} s ({spans[0] / seconds:.2f}×)" for seconds in spans]
    return f"| {name} | " + " | ".join(cells) + " |"


def told(result: Any, start: float, seconds: float, cpu: float, moved: int, memory: int) -> Run:
    """A run with what came of it."""
    digest = hashlib.sha256(result.model.SerializeToString()).hexdigest()
    error = float(result.report.outputs[0].relative_error)
    return Run(start, seconds, cpu, moved, memory, digest, error)


def rows(name: str, runs: dict[int, list[Run]]) -> list[str]:
    """The part of the table about one model."""
    best = {n: min(found, key=lambda run: run.start + run.seconds) for n, found in runs.items()}
    one = best.get(1)
    digests = {run.digest for n, found in runs.items() for run in found if n}
    lines = []
    for count, run in best.items():
        total = run.start + run.seconds
        faster = f"{(one.start + one.seconds) / total:.2f}" if one else "–"
        same = "–" if not count else "yes" if len(digests) == 1 else "no"
        moved = f"{run.moved / 1e6:.0f} MB" if count else "–"
        memory = f"{run.memory / 2**20:.0f} MiB" if count else "–"
        lines.append(
            f"| {name} | {count or 'none'} | {run.start:.1f} | {run.seconds:.1f} | {faster} "
            f"| {run.cpu:.0f} | {moved} | {memory} | {run.error:.5f} | {same} |"
        )
    return lines


def main() -> None:
    """Print the page, or write it."""
    given = arguments()
    counts = [int(count) for count in given.workers.split(",")]
    with tempfile.TemporaryDirectory() as name:
        places = [(Path(m), Path(c)) for m, _, c in (pair.partition("=") for pair in given.models)]
        places += [mlp(Path(name), called) for called in MLPS]
        lines, tasks, spans = [], [], []
        for model, calib in places:
            costs, own = tried(model, calib, given.samples)
            tasks += task_rows(model.stem, costs, own)
            spans.append(span_row(model.stem, costs, own))
            runs: dict[int, list[Run]] = {count: [] for count in counts}
            for _ in range(given.repeats):
                for count in counts:
                    runs[count].append(measured(model, calib, count, given.samples))
                    print(model.stem, count, runs[count][-1], flush=True)
            lines += rows(model.stem, runs)
    page = PAGE.format(
        rows="\n".join(lines), tasks="\n".join(tasks), model="\n".join(spans),
        cores=psutil.cpu_count(), samples=given.samples, load=psutil.getloadavg()[1],
        version=onnx_sipp.__version__, repeats=given.repeats, workers=given.workers,
    )  # fmt: skip
    if given.out is None:
        print(page)
    else:
        given.out.write_text(page, encoding="utf-8")


PAGE = """# Workers

A default run of `prune` (50 % zeros, {samples} samples) on workers with one thread each, all on one
machine with {cores} cores; the fastest of {repeats} in turn. `none` is one process with one thread.
`faster` is against one worker, start included. `equal` says whether all runs on workers gave the
same bytes. The MLPs have layers of 256, 1024, 1024, 10, of 784, 2048, 2048, 10, and of 1024, 4096,
4096, 10: no budgets are tried for the last one. [cluster.md](cluster.md) tells what is done where.

| model | workers | start, s | run, s | faster | CPU s | moved | memory | error | equal |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
{rows}

On average {load:.1f} processes were ready to run on the {cores} cores in the last five minutes of
this, workers included. The more there are, the less seconds of the clock tell. What the tasks
cost by themselves, all done in one process:

| model | task | count | CPU s | CPU s of the longest | a result |
| --- | --- | --- | --- | --- | --- |
{tasks}

If every worker had a machine with one core for itself, and workers and network took no time to
start and to carry, these tasks would take:

| model | 1 worker | 2 workers | 4 workers | 8 workers |
| --- | --- | --- | --- | --- |
{model}

Made by `python tools/bench_cluster.py resnet20-cifar10.onnx=cifar10-calib.npz --workers {workers}
--repeats {repeats} --out docs/results-cluster.md` with onnx-sipp {version}.
"""


if __name__ == "__main__":
    main()
