"""What zeros buy in onnxruntime and OpenVINO on this processor: size and time by pattern.

    python tools/table_zeros.py [--rounds 30]

Two models are made, a perceptron and a row of convolutions, with random weights: neither size nor
time depends on their values. The smallest weights, or blocks of them, are made zero, channels are
left out, and the result is quantised and packed. Prints the tables of ``docs/what-zeros-buy.md``.
Times are on one thread; dense and other take turns.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import openvino
import zstandard
from onnx import TensorProto, helper, numpy_helper
from table_methods import markdown
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
Keep = Callable[[np.ndarray], np.ndarray]


def perceptron(rng: np.random.Generator, inner: int) -> onnx.ModelProto:
    """Three layers between 2048 inputs and outputs.

    Args:
        rng: of the weights.
        inner: hidden units.
    """
    shapes = [(2048, inner), (inner, inner), (inner, 2048)]
    nodes = [("MatMul", {}) for _ in shapes]
    return chain(rng, nodes, shapes, ["n", 2048])


def convolutions(rng: np.random.Generator, inner: int) -> onnx.ModelProto:
    """Five convolutions of 3 × 3 between 128 channels of 16 × 16 places.

    Args:
        rng: of the weights.
        inner: channels in between.
    """
    counts = [128, *[inner] * 4, 128]
    shapes = [(out, into, 3, 3) for into, out in pairwise(counts)]
    nodes = [("Conv", {"pads": [1, 1, 1, 1]}) for _ in shapes]
    return chain(rng, nodes, shapes, ["n", 128, 16, 16])


def chain(
    rng: np.random.Generator,
    layers: Sequence[tuple[str, dict[str, object]]],
    shapes: Sequence[tuple[int, ...]],
    shape: list[str | int],
) -> onnx.ModelProto:
    """Layers with a Relu in between.

    Args:
        rng: of the weights.
        layers: operators and attributes.
        shapes: of the weights.
        shape: of the input and the output.
    """
    name, nodes, weights = "x", [], []
    for index, ((op_type, attributes), dims) in enumerate(zip(layers, shapes, strict=True)):
        weight = rng.standard_normal(dims, np.float32) / np.float32(np.sqrt(np.prod(dims) / 128))
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        last = index == len(layers) - 1
        made = "y" if last else f"h{index}"
        nodes.append(helper.make_node(op_type, [name, f"w{index}"], [made], **attributes))
        name = f"r{index}"
        if not last:
            nodes.append(helper.make_node("Relu", [made], [name]))
    values = [helper.make_tensor_value_info(value, TensorProto.FLOAT, shape) for value in "xy"]
    graph = helper.make_graph(nodes, "layers", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def masked(model: onnx.ModelProto, keep: Keep) -> onnx.ModelProto:
    """A copy with some weights zero.

    Args:
        model: dense.
        keep: says which weights of a matrix stay, ``[neurons, inputs]`` with the places of a
            window, if there are any, in front.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        weight = numpy_helper.to_array(tensor).copy()
        matrices = weight.transpose(2, 3, 0, 1) if weight.ndim == 4 else weight.T
        matrices[~keep(np.abs(matrices))] = 0  # a view
        tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    return copy


def anywhere(share: float) -> Keep:
    """The largest weights of a tensor stay.

    Args:
        share: that goes.
    """
    return lambda sizes: sizes > np.quantile(sizes, share)


def two_of_four(sizes: np.ndarray) -> np.ndarray:
    """The two largest of every four inputs stay.

    Args:
        sizes: of the weights.
    """
    fours = sizes.reshape(*sizes.shape[:-1], -1, 4)
    ranks = fours.argsort(axis=-1).argsort(axis=-1)
    kept: np.ndarray = (ranks >= 2).reshape(sizes.shape)
    return kept


def blocks(share: float) -> Keep:
    """The largest blocks of four neurons stay.

    Args:
        share: that goes.
    """

    def keep(sizes: np.ndarray) -> np.ndarray:
        *places, neurons, inputs = sizes.shape
        sums = sizes.reshape(*places, neurons // 4, 4, inputs).sum(axis=-2)
        return np.repeat(sums > np.quantile(sums, share), 4, axis=-2)

    return keep


def variants(
    model: onnx.ModelProto, smaller: onnx.ModelProto, calib: Arrays
) -> list[tuple[str, onnx.ModelProto]]:
    """The model with every pattern.

    Args:
        model: dense.
        smaller: with half the multiply-adds.
        calib: samples.
    """
    sparse, half = masked(model, anywhere(0.9)), masked(model, two_of_four)
    feeds = [{"x": sample[np.newaxis]} for sample in calib["x"]]

    def integers(source: onnx.ModelProto) -> onnx.ModelProto:
        return quantize(Model.load(source), "int8", feeds, 1).model.proto

    return [
        ("dense", model),
        ("anywhere, 70 %", masked(model, anywhere(0.7))),
        ("anywhere, 90 %", sparse),
        ("2:4", half),
        ("blocks 4x1, 70 %", masked(model, blocks(0.7))),
        ("channels, half the multiply-adds", smaller),
        ("int8", integers(model)),
        ("int8, 2:4", integers(half)),
        ("int8, anywhere, 90 %", integers(sparse)),
        ("int8, channels", integers(smaller)),
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


def table(model: onnx.ModelProto, smaller: onnx.ModelProto, calib: Arrays, rounds: int) -> str:
    """Measures a model with every pattern.

    Args:
        model: dense.
        smaller: with half the multiply-adds.
        calib: samples.
        rounds: runs per measurement.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        dense, plain, packed = (Path(folder) / f"{n}.onnx" for n in ("dense", "plain", "packed"))
        onnx.save(model, dense)
        whole = dense.stat().st_size
        sparse_rate = "amx_int8" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
        for name, variant in variants(model, smaller, calib):
            onnx.save(variant, plain)
            size = onnx_sipp.pack(plain).save(packed)
            compressed = len(zstandard.ZstdCompressor(level=9).compress(plain.read_bytes()))
            row = [name, f"{zeros(variant):.0%}", f"{plain.stat().st_size / whole:.3f}",
                   f"{size / whole:.3f}", f"{compressed / whole:.3f}"]  # fmt: skip
            base = in_onnxruntime(dense, calib)
            row.append(ratio(base, in_onnxruntime(plain, calib), rounds))
            base = in_openvino(dense, calib)
            row += [ratio(base, in_openvino(path, calib), rounds) for path in (plain, packed)]
            if sparse_rate and name.startswith("int8, anywhere"):
                run = in_openvino(plain, calib, **{SPARSE_RATE: 0.8})
                row[-2] += f" ({ratio(base, run, rounds)} with {SPARSE_RATE}=0.8)"
            rows.append(row)
            print(" | ".join(row), flush=True)
    return markdown(HEADER, rows)


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    cases = [
        ("Three layers of 2048 × 2048", perceptron(rng, 2048), perceptron(rng, 1216),
         {"x": rng.standard_normal((BATCH, 2048), np.float32)}),
        ("Five convolutions of 128 channels", convolutions(rng, 128), convolutions(rng, 80),
         {"x": rng.standard_normal((BATCH, 128, 16, 16), np.float32)}),
    ]  # fmt: skip
    tables = [f"{title}:\n\n{table(*case, arguments.rounds)}" for title, *case in cases]
    print("\n" + "\n".join(tables))
    print(f"This processor has {processor_flags()}; onnxruntime {ort.__version__}, "
          f"OpenVINO {openvino.__version__}.")  # fmt: skip


if __name__ == "__main__":
    main()
