"""What zeros buy in onnxruntime and OpenVINO on this processor: size and time by pattern.

    python tools/table_zeros.py [--also TITLE MODEL.onnx CALIB.npz] [--rounds 30]

Two models are made, a perceptron and a row of convolutions, with random weights: neither size nor
time depends on their values. They are pruned by magnitude with every pattern, cut, quantised and
packed. Prints the tables of ``docs/what-zeros-buy.md``. Times are on one thread; dense and other
take turns.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import openvino
import zstandard
from onnx import TensorProto, helper, numpy_helper
from table_methods import markdown
from table_packing import perceptron
from table_quantized import processor_flags

import onnx_sipp
from onnx_sipp.graph.model import Model
from onnx_sipp.quantizing.quantize import quantize

BATCH = 16
SPARSE_RATE = "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE"
HEADER = ["pattern", "zeros", "size", "packed", "zstd", "onnxruntime", "OpenVINO",
          "OpenVINO, packed"]  # fmt: skip
Arrays = dict[str, np.ndarray]
Run = Callable[[], object]


def convolutions(rng: np.random.Generator) -> onnx.ModelProto:
    """Five convolutions of 128 channels on 16 × 16 places.

    Args:
        rng: of the weights.
    """
    names = ["x", *(f"r{index}" for index in range(4)), "y"]
    nodes, weights = [], []
    for index in range(5):
        weight = rng.standard_normal((128, 128, 3, 3), np.float32) / np.float32(34)
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        made = "y" if index == 4 else f"c{index}"
        inputs = [names[index], f"w{index}"]
        nodes.append(helper.make_node("Conv", inputs, [made], f"conv{index}", pads=[1, 1, 1, 1]))
        if index < 4:
            nodes.append(helper.make_node("Relu", [made], [names[index + 1]]))
    shape = ["n", 128, 16, 16]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
    graph = helper.make_graph(nodes, "convolutions", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def variants(model: onnx.ModelProto, calib: Arrays) -> list[tuple[str, onnx.ModelProto]]:
    """The model with every pattern.

    Args:
        model: dense.
        calib: samples.
    """
    few = {"num_samples": 16, "method": "magnitude", "allocation": "layer"}

    def pruned(**options: object) -> onnx.ModelProto:
        return onnx_sipp.prune(model, calib, **(few | options)).model

    def integers(source: onnx.ModelProto) -> onnx.ModelProto:
        count = min(16, len(next(iter(calib.values()))))
        feeds = [{k: v[n : n + 1] for k, v in calib.items()} for n in range(count)]
        return quantize(Model.load(source), "int8", feeds, 1).model.proto

    sparse = pruned(sparsity=0.9)
    half = pruned(pattern="2:4", allocation=None)
    cut = onnx_sipp.prune(model, calib, pattern="channels", macs=0.5, num_samples=16).model
    return [
        ("dense", model),
        ("anywhere, 70 %", pruned(sparsity=0.7)),
        ("anywhere, 90 %", sparse),
        ("2:4", half),
        ("blocks 4x1, 70 %", pruned(pattern="4x1", sparsity=0.7)),
        ("channels, half the multiply-adds", cut),
        ("int8", integers(model)),
        ("int8, 2:4", integers(half)),
        ("int8, anywhere, 90 %", integers(sparse)),
        ("int8, channels", integers(cut)),
    ]


def zeros(model: onnx.ModelProto) -> float:
    """The share of the most common element in weights.

    Args:
        model: to count in.
    """
    count = total = 0
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1 and tensor.data_type in (TensorProto.FLOAT, TensorProto.INT8):
            values = numpy_helper.to_array(tensor)
            count, total = count + int(np.count_nonzero(values == 0)), total + values.size
    return count / total


def in_onnxruntime(path: Path, feed: Arrays) -> Run:
    """A run on one thread.

    Args:
        path: of the model.
        feed: its inputs.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feed)


def in_openvino(path: Path, feed: Arrays, **more: object) -> Run:
    """A run on one thread, in float32 where it is not in integers.

    Args:
        path: of the model.
        feed: its inputs.
        **more: properties of the device.
    """
    properties = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", **more}
    request = openvino.Core().compile_model(str(path), "CPU", properties).create_infer_request()
    return lambda: request.infer(feed)


def ratio(one: Run, other: Run, rounds: int) -> str:
    """Time of the second by that of the first: the median of runs that take turns.

    Args:
        one: dense.
        other: the other one.
        rounds: runs of each.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 3):
        for run, taken in zip((one, other), times, strict=True):
            start = time.process_time()
            run()
            if turn >= 3:
                taken.append(time.process_time() - start)
    return f"{statistics.median(times[1]) / statistics.median(times[0]):.2f}"


def table(model: onnx.ModelProto, calib: Arrays, rounds: int) -> str:
    """Measures a model with every pattern.

    Args:
        model: dense.
        calib: samples.
        rounds: runs per measurement.
    """
    feed = {name: np.resize(values, (BATCH, *values.shape[1:])) for name, values in calib.items()}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        dense, plain, packed = (Path(folder) / f"{n}.onnx" for n in ("dense", "plain", "packed"))
        onnx.save(model, dense)
        whole = dense.stat().st_size
        sparse_rate = "amx_int8" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
        for name, variant in variants(model, calib):
            onnx.save(variant, plain)
            size = onnx_sipp.pack(plain).save(packed)
            compressed = len(zstandard.ZstdCompressor(level=9).compress(plain.read_bytes()))
            row = [name, f"{zeros(variant):.0%}", f"{plain.stat().st_size / whole:.3f}",
                   f"{size / whole:.3f}", f"{compressed / whole:.3f}"]  # fmt: skip
            base = in_onnxruntime(dense, feed)
            row.append(ratio(base, in_onnxruntime(plain, feed), rounds))
            base = in_openvino(dense, feed)
            row += [ratio(base, in_openvino(path, feed), rounds) for path in (plain, packed)]
            if sparse_rate and name.startswith("int8, anywhere"):
                run = in_openvino(plain, feed, **{SPARSE_RATE: 0.8})
                row[-2] += f" ({ratio(base, run, rounds)} with {SPARSE_RATE}=0.8)"
            rows.append(row)
            print(" | ".join(row), flush=True)
    return markdown(HEADER, rows)


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--also", nargs=3, action="append", default=[], metavar=("TITLE", "MODEL", "CALIB")
    )
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    cases = [
        ("Three layers of 2048 × 2048", perceptron(rng),
         {"x": rng.standard_normal((16, 2048), np.float32)}),
        ("Five convolutions of 128 channels", convolutions(rng),
         {"x": rng.standard_normal((16, 128, 16, 16), np.float32)}),
    ]  # fmt: skip
    for title, path, calib in arguments.also:
        with np.load(calib) as data:
            cases.append((title, onnx.load(path), {n: v[:16] for n, v in data.items()}))
    tables = [f"{title}:\n\n{table(*case, arguments.rounds)}" for title, *case in cases]
    print("\n" + "\n".join(tables))
    print(f"This processor has {processor_flags()}; onnxruntime {ort.__version__}, "
          f"OpenVINO {openvino.__version__}.")  # fmt: skip


if __name__ == "__main__":
    main()
