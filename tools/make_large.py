"""Makes a large model of MatMul layers with external data, and samples to calibrate it on.

Nothing is held in memory but one piece of a weight, so a model of any size can be made.

    python tools/make_large.py large.onnx --gigabytes 3 [--widths 2048 4096 8192 8192 4096]

Writes ``large.onnx``, its weights ``large.onnx.data`` and samples ``large-calib.npz``. The model
goes through the widths again and again, a Relu after every layer and a skip path around every
cycle. Weights are random with rows and columns of unlike scale; the samples have correlated
features of unlike scale. The same arguments give the same bytes.
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import cycle, pairwise
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

WIDTHS = (2048, 4096, 8192, 8192, 4096)
PIECE_ROWS = 256
ALIGNMENT = 4096


def chain(widths: Sequence[int], size: int) -> list[tuple[int, int]]:
    """Returns the inputs and outputs of layers whose weights take about so many bytes."""
    layers: list[tuple[int, int]] = []
    total = 0
    for layer in pairwise(cycle(widths)):
        total += 4 * layer[0] * layer[1]
        if layers and total > size:
            return layers
        layers.append(layer)
    raise AssertionError("the cycle has no end")


def pieces(rng: np.random.Generator, rows: int, columns: int) -> Iterator[NDArray[np.float32]]:
    """Yields a weight ``[rows, columns]`` a few rows at a time."""
    by_row = np.exp(0.5 * rng.standard_normal((rows, 1), np.float32))
    by_column = np.exp(0.5 * rng.standard_normal(columns, np.float32))
    scale = by_column * np.float32(np.sqrt(2 / np.sum(by_row**2)) / np.sqrt(np.mean(by_column**2)))
    for start in range(0, rows, PIECE_ROWS):
        part = by_row[start : start + PIECE_ROWS]
        yield rng.standard_normal((len(part), columns), np.float32) * part * scale


def write_model(path: Path, layers: Sequence[tuple[int, int]], seed: int) -> int:
    """Writes a model and its external data.

    Args:
        path: The model.
        layers: Inputs and outputs of every layer.
        seed: Of the weights.

    Returns:
        The number of weights.
    """
    location = f"{path.name}.data"
    tensors, nodes = [], []
    value = skip = "x"
    with (path.parent / location).open("wb") as out:
        for index, (rows, columns) in enumerate(layers):
            weight = TensorProto(name=f"w{index}", data_type=TensorProto.FLOAT)
            weight.dims.extend((rows, columns))
            weight.data_location = TensorProto.EXTERNAL
            start = -(-out.tell() // ALIGNMENT) * ALIGNMENT
            out.seek(start)
            for piece in pieces(np.random.default_rng([seed, index]), rows, columns):
                out.write(piece.tobytes())
            entries = {"location": location, "offset": start, "length": 4 * rows * columns}
            for key, entry in entries.items():
                weight.external_data.add(key=key, value=str(entry))
            bias = onnx.numpy_helper.from_array(np.zeros(columns, np.float32), f"b{index}")
            tensors += [weight, bias]
            new, value = layer_nodes(index, value, skip if columns == layers[0][0] else "")
            nodes += new
            skip = value if columns == layers[0][0] else skip
    result = helper.make_tensor_value_info(value, TensorProto.FLOAT, ["n", layers[-1][1]])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", layers[0][0]])
    graph = helper.make_graph(nodes, "large", [x], [result], tensors)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return sum(rows * columns for rows, columns in layers)


def layer_nodes(index: int, value: str, skip: str) -> tuple[list[NodeProto], str]:
    """Returns the nodes of a layer and its output: added to a skip path, or behind a Relu."""
    nodes = [
        helper.make_node("MatMul", [value, f"w{index}"], [f"p{index}"], f"layer{index}"),
        helper.make_node("Add", [f"p{index}", f"b{index}"], [f"s{index}"], f"add{index}"),
    ]
    output = f"a{index}"
    last = ("Add", [f"s{index}", skip]) if skip else ("Relu", [f"s{index}"])
    return [*nodes, helper.make_node(last[0], last[1], [output], f"out{index}")], output


def samples(count: int, width: int, seed: int) -> NDArray[np.float32]:
    """Returns rows of correlated features of unlike scale."""
    rng = np.random.default_rng([seed, 1 << 20])
    hidden = max(8, width // 8)
    mixing = rng.standard_normal((hidden, width), np.float32) / np.float32(np.sqrt(hidden))
    scale = np.exp(rng.standard_normal(width, np.float32))
    own = 0.3 * rng.standard_normal((count, width), np.float32)
    rows = rng.standard_normal((count, hidden), np.float32) @ mixing + own
    result: NDArray[np.float32] = rows * scale / np.float32(np.sqrt(np.mean(scale**2)))
    return result


def main() -> None:
    """Makes what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS))
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    layers = chain(arguments.widths, int(arguments.gigabytes * 1e9))
    count = write_model(arguments.path, layers, arguments.seed)
    calib = arguments.path.with_name(f"{arguments.path.stem}-calib.npz")
    np.savez(calib, x=samples(arguments.samples, layers[0][0], arguments.seed))
    print(f"{arguments.path}: {len(layers)} layers, {count:,} weights, {4 * count / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
