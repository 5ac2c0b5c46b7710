"""Packed storage: size, equality, speed and loading at several sparsities.

Magnitude-prunes a model per tensor, packs it, and compares packed with dense (with the same zeros)
in onnxruntime; OpenVINO's results are checked too. Without a model, a perceptron of three layers of
2048 × 2048 is made.

    python tools/table_packing.py [MODEL.onnx DATA.npz] [--sparsities 0.5 0.9] [--values int8]

Exits with 1 if an output of the packed model differs in onnxruntime.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import openvino
from onnx import TensorProto, helper, numpy_helper

import onnx_sipp

WIDTH = 2048


def perceptron(rng: np.random.Generator) -> onnx.ModelProto:
    """Three layers with Relu between.

    Args:
        rng: of the weights.
    """
    names = ["x", "h1", "h2", "y"]
    nodes, weights = [], []
    for index in range(3):
        weight = rng.standard_normal((WIDTH, WIDTH), np.float32) / np.float32(np.sqrt(WIDTH))
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        product = names[index + 1] if index == 2 else f"p{index}"
        nodes.append(helper.make_node("MatMul", [names[index], f"w{index}"], [product]))
        if index < 2:
            nodes.append(helper.make_node("Relu", [product], [names[index + 1]]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in "xy"]
    graph = helper.make_graph(nodes, "perceptron", values[:1], values[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pruned(model: onnx.ModelProto, sparsity: float) -> onnx.ModelProto:
    """A copy with the smallest weights of every tensor of two or more axes zero.

    Args:
        model: to prune.
        sparsity: share of zeros.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if len(tensor.dims) >= 2 and tensor.data_type == TensorProto.FLOAT:
            weight = numpy_helper.to_array(tensor).copy()
            order = np.argsort(np.abs(weight), axis=None, kind="stable")
            weight.reshape(-1)[order[: round(sparsity * weight.size)]] = 0
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    return copy


def outputs(path: Path, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What onnxruntime makes of a feed.

    Args:
        path: of the model.
        feed: arrays by input name.
    """
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def openvino_error(dense: Path, packed: Path, feed: dict[str, np.ndarray]) -> float:
    """Largest difference of the first output in OpenVINO.

    Args:
        dense: path of a model.
        packed: path of another one.
        feed: arrays by input name.
    """
    core = openvino.Core()
    one, two = (core.compile_model(str(path), "CPU")(feed)[0] for path in (dense, packed))
    return float(np.abs(one - two).max())


def main() -> int:
    """Measures and prints a table.

    Returns:
        0, or 1 if an output differs.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.5, 0.7, 0.8, 0.9, 0.95])
    parser.add_argument("--values", default="exact")
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    if arguments.model is None:
        model, feed = perceptron(rng), {"x": rng.standard_normal((16, WIDTH), np.float32)}
    else:
        model = onnx.load(arguments.model)
        names = {value.name for value in model.graph.input}
        feed = {k: v[:16] for k, v in np.load(arguments.data).items() if k in names}
    print("| sparsity | size | packed | encodings | same bits | OpenVINO "
          "| latency, batch 16, 1 thread |"
          " load | peak memory above base |")  # fmt: skip
    print("| ---: | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: |")
    all_same = True
    for sparsity in arguments.sparsities:
        with tempfile.TemporaryDirectory() as folder:
            dense, packed = Path(folder) / "dense.onnx", Path(folder) / "packed.onnx"
            onnx.save(pruned(model, sparsity), dense)
            result = onnx_sipp.pack(dense, values=arguments.values)
            result.save(packed)
            same = all(map(np.array_equal, outputs(dense, feed), outputs(packed, feed)))
            found = onnx_sipp.compare(
                dense, packed, feed, batch_sizes=[16], threads=[1], seconds=arguments.seconds
            )
            one, two = found.dense, found.pruned
            row = found.latency[0]
            above = [print_.peak_bytes - print_.base_bytes for print_ in (one, two)]
            kinds = sorted({tensor.encoding for tensor in result.report.packed})
            print(
                f"| {sparsity:.0%} | {one.bytes:,} | {two.bytes / one.bytes:.3f} | "
                f"{', '.join(kinds)} | {'yes' if same else 'no'} | "
                f"{openvino_error(dense, packed, feed):.1g} | "
                f"{row.ratio:.3f} ± {row.ratio_error:.3f} | "
                f"{1e3 * one.load_seconds:.0f} → {1e3 * two.load_seconds:.0f} ms | "
                f"{above[0] >> 20} → {above[1] >> 20} MiB |",
                flush=True,
            )
            all_same &= same or arguments.values != "exact"
    return int(not all_same)


if __name__ == "__main__":
    sys.exit(main())
