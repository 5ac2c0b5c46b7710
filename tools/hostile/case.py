"""What a hostile case is, and the harmless model that most of them start from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Of a file that no model has a right to.
SECRET = b"secret " * 64
PRUNE = ("m.onnx", "o.onnx", "--method", "magnitude", "--calib", "d.npz")
INSPECT = ("inspect", "m.onnx")
WEIGHT = np.random.default_rng(0).standard_normal((4, 16), np.float32)

# Looks at what ran: the folder, what was printed (standard output, then error); says what is wrong.
Check = Callable[[Path, str, str], str]


@dataclass(frozen=True)
class Case:
    """A hostile input and what is run on it.

    Attributes:
        name: For the table.
        make: Puts the files into a folder, whose parent has a file ``secret``.
        commands: Arguments of ``onnx-sipp``, one run each.
        refused: Whether every run must end with a message; if not, it must end well.
        check: Of the result, beyond that.
        new: Files that the runs may make.
        either: Whether it may also end well, as the file is odd but does no harm.
    """

    name: str
    make: Callable[[Path], object]
    commands: Sequence[Sequence[str]] = (PRUNE, INSPECT)
    refused: bool = True
    check: Check | None = None
    new: Sequence[str] = field(default=("o.onnx", "o.onnx.data"))
    either: bool = False


def data(folder: Path) -> None:
    """Writes harmless samples: ``d.npz``."""
    values = np.random.default_rng(1).standard_normal((40, 4), np.float32)
    np.savez(folder / "d.npz", x=values)


def model(
    nodes: Sequence[onnx.NodeProto] = (),
    constants: Sequence[TensorProto] = (),
    *,
    name: str = "layer",
    shape: Sequence[Any] = ("n", 4),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    """A model with one layer, ``x W = h``, and then the given nodes, whose last output counts.

    Args:
        nodes: Behind the layer; they may read ``h``.
        constants: Initializers beside W.
        name: Of the layer's node.
        shape: Of x.
        functions: Of the domain ``own``.
    """
    layer = helper.make_node("MatMul", ["x", "w"], ["h"], name=name)
    output = nodes[-1].output[0] if nodes else "h"
    graph = helper.make_graph(
        [layer, *nodes],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(WEIGHT, "w"), *constants],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=8)


def write(proto: onnx.ModelProto, folder: Path) -> None:
    """Writes a model and harmless samples; external data stays what the model says of it."""
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    data(folder)


def external(entries: dict[str, str], dims: Sequence[int] = WEIGHT.shape) -> onnx.ModelProto:
    """The model with its weight in another file.

    Args:
        entries: Of the reference: location, offset, length.
        dims: That it claims.
    """
    proto = model()
    weight = proto.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.dims[:] = dims
    weight.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        weight.external_data.add(key=key, value=value)
    return proto
