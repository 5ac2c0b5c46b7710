"""Prunes a synthetic decoder of a billion parameters, in external data, and measures the run.

    python tools/bench_decoder.py [--layers 20 --width 2048] [--samples 64 --length 64]
        [--folder DIR] [--options JSON] [--out docs/results-decoder.md]

Makes a decoder (embedding, causal attention, networks of four times the width, all random) with
weights as ``make_large.py`` makes them, prunes and refits it by half in a process of its own, and
prints time, peak memory and the share of the working time that is spent in matrix products: the
stacks of all threads are looked at fifty times a second, and those that work count. A product is
what numpy and onnxruntime do there: sums of H and B, steps of the refit, runs of the model; the
(max, ×) product of the sensitivities is told apart from these. Needs about four times the size of
the model in ``--folder``.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from make_large import pieces
from onnx import TensorProto, helper, numpy_helper

import onnx_sipp

WORDS = 32000
# Functions (by file and name) in which numpy or onnxruntime multiply matrices, and little else.
PRODUCTS = {
    ("multiplying", "times"), ("multiplying", "times_transposed"), ("gram", "update"),
    ("sensitivity", "_inverse_denominators"), ("rectified", "predicted"),
    ("onnxruntime_inference_collection", "run"),
}  # fmt: skip
# The product of matrices over (max, ×), compiled.
MAX_PRODUCTS = {("max_product", "max_product")}
# Where threads wait for others.
WAITING = {"wait", "acquire", "_worker", "join", "result", "select", "get"}


class Decoder:
    """A decoder that is written as it is made."""

    def __init__(self, path: Path, width: int, length: int) -> None:
        self._path, self._width, self._length = path, width, length
        self._location = f"{path.name}.data"
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[TensorProto] = []
        self._out = (path.parent / self._location).open("wb")

    def write(self, layers: int) -> None:
        """Writes everything."""
        width, heads = self._width, max(1, self._width // 128)
        self._small("split", np.array([0, 0, heads, width // heads]))
        self._small("joined", np.array([0, 0, width]))
        self._small("scale", np.float32((width // heads) ** -0.5))
        later = np.triu(np.full((self._length, self._length), -1e4, np.float32), 1)
        self._small("causal", later)
        x = self._add("Gather", [self._weight("words", WORDS, width), "ids"], "embedded")
        for number in range(layers):
            x = self._layer(x, f"layer{number}")
        x = self._normalized(x, "last")
        self._nodes[-1].output[0] = "hidden"
        self._out.close()
        shape = ["batch", self._length]
        graph = helper.make_graph(
            self._nodes,
            "decoder",
            [helper.make_tensor_value_info("ids", TensorProto.INT64, shape)],
            [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, [*shape, width])],
            self._constants,
        )
        opsets = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), self._path)

    def _layer(self, x: str, name: str) -> str:
        width, own = self._width, self._normalized(x, f"{name}.norm1")
        q, k, v = (
            self._heads(self._product(own, f"{name}.{part}", width, width), order)
            for part, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3]))
        )
        scores = self._add("Mul", [self._add("MatMul", [q, k], f"{name}.qk"), "scale"], f"{name}.s")
        scores = self._add("Add", [scores, "causal"], f"{name}.masked")
        mixed = self._add(
            "MatMul", [self._add("Softmax", [scores], f"{name}.soft"), v], f"{name}.av"
        )
        mixed = self._add("Transpose", [mixed], f"{name}.back", perm=[0, 2, 1, 3])
        mixed = self._add("Reshape", [mixed, "joined"], f"{name}.join")
        x = self._add("Add", [self._product(mixed, f"{name}.o", width, width), x], f"{name}.sum1")
        own = self._normalized(x, f"{name}.norm2")
        own = self._add(
            "Relu", [self._product(own, f"{name}.up", width, 4 * width)], f"{name}.relu"
        )
        own = self._product(own, f"{name}.down", 4 * width, width)
        return self._add("Add", [own, x], f"{name}.sum2")

    def _heads(self, x: str, order: list[int]) -> str:
        return self._add("Transpose", [self._add("Reshape", [x, "split"], f"{x}.split")],
                         f"{x}.heads", perm=order)  # fmt: skip

    def _product(self, x: str, name: str, rows: int, columns: int) -> str:
        return self._add("MatMul", [x, self._weight(f"{name}.weight", rows, columns)], name)

    def _normalized(self, x: str, name: str) -> str:
        ones = self._small(f"{name}.weight", np.ones(self._width, np.float32))
        return self._add("LayerNormalization", [x, ones], name, axis=-1)

    def _add(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def _small(self, name: str, values: Any) -> str:
        self._constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def _weight(self, name: str, rows: int, columns: int) -> str:
        """A large constant, a few rows of it in memory at a time."""
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=(rows, columns))
        tensor.data_location = TensorProto.EXTERNAL
        start = -(-self._out.tell() // 4096) * 4096
        self._out.seek(start)
        for piece in pieces(np.random.default_rng([0, len(self._constants)]), rows, columns):
            self._out.write(piece.tobytes())
        entries = {"location": self._location, "offset": start, "length": 4 * rows * columns}
        for key, entry in entries.items():
            tensor.external_data.add(key=key, value=str(entry))
        self._constants.append(tensor)
        return name


class Watch(threading.Thread):
    """Looks at what the threads of this process do."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: Counter[tuple[str, str]] = Counter()
        self.stopped = threading.Event()

    def run(self) -> None:
        """Looks, until it is stopped."""
        while not self.stopped.wait(0.02):
            for thread, frame in sys._current_frames().items():  # noqa: SLF001
                place = Path(frame.f_code.co_filename).stem, frame.f_code.co_name
                if thread != self.ident and place[1] not in WAITING:
                    self.seen[place] += 1

    def share(self, places: set[tuple[str, str]]) -> float:
        """Share of some functions in what was seen."""
        return sum(self.seen[place] for place in places) / max(1, self.seen.total())


def prune_watched(model: str, calib: str, target: str, options: str) -> None:
    """Prunes, and prints as JSON what was seen."""
    watch = Watch()
    watch.start()
    start = time.perf_counter()
    result = onnx_sipp.prune(model, calib, sparsity=0.5, **json.loads(options))
    report = result.save(target)
    seconds = time.perf_counter() - start
    watch.stopped.set()
    found = {
        "seconds": seconds,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "products": watch.share(PRODUCTS),
        "max_products": watch.share(MAX_PRODUCTS),
        "zeros": report.sparsity,
        "prunable": report.prunable,
        "parameters": report.parameters,
        "error": report.outputs[0].relative_error,
        "most": [
            [*place, count / watch.seen.total()] for place, count in watch.seen.most_common(12)
        ],
    }
    print(json.dumps(found))


def main() -> None:
    """Makes the model, prunes it and prints what was measured."""
    if sys.argv[1:2] == ["--one"]:
        prune_watched(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--layers", type=int, default=20)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--folder", type=Path, help="for the files; a temporary one by default")
    parser.add_argument("--options", default="{}", help="of onnx_sipp.prune, as JSON")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        model, calib, target = (
            str(Path(name) / file) for file in ("in.onnx", "in.npz", "out.onnx")
        )
        Decoder(Path(model), given.width, given.length).write(given.layers)
        rng = np.random.default_rng(0)
        words = np.minimum(rng.zipf(1.2, (given.samples, given.length)) - 1, WORDS - 1)
        np.savez(calib, ids=words)
        options = json.dumps({"workdir": name, **json.loads(given.options)})
        command = [sys.executable, __file__, "--one", model, calib, target, options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    page = told(json.loads(done.stdout.splitlines()[-1]), given)
    if given.out is None:
        print(page)
    else:
        given.out.write_text(page, encoding="utf-8")


def told(found: dict[str, Any], given: argparse.Namespace) -> str:
    """The page about a run."""
    most = "\n".join(f"| `{file}.{name}` | {share:.1%} |" for file, name, share in found["most"])
    return PAGE.format(
        **vars(given), **{key: value for key, value in found.items() if key != "most"}, most=most,
        tokens=given.samples * given.length, minutes=found["seconds"] / 60, cores=os.cpu_count(),
        made=given.options if given.options != "{}" else "the default ones",
        version=onnx_sipp.__version__, load=os.getloadavg()[2],
    )  # fmt: skip


PAGE = """# A decoder of a billion parameters

A random decoder of {layers} layers, {width} wide, in external data, pruned and refitted by half on
{samples} samples of {length} tokens ({tokens:,} in all), on a machine with {cores} cores; options:
{made}.

| | |
| --- | --- |
| parameters | {parameters:,}, {prunable:,} of them prunable |
| zeros | {zeros:.4%} |
| time | {seconds:,.0f} s ({minutes:.0f} minutes) |
| peak memory | {peak:,.0f} MiB |
| relative error of the outputs | {error:.4f} |
| in matrix products | {products:.1%} of the time that threads worked |
| in (max, ×) products | {max_products:.1%} of it |

Weights are random, so the error says nothing about models that were trained. Peak memory is that of
the process, with the pages of mapped files that were in memory. Where threads were seen at work:

| function | share |
| --- | --- |
{most}

{load:.1f} processes were ready to run, on average, in the last quarter of an hour, this included.

Made by `python tools/bench_decoder.py --layers {layers} --width {width} --samples {samples}
--length {length} --out docs/results-decoder.md` with onnx-sipp {version}.
"""


if __name__ == "__main__":
    main()
