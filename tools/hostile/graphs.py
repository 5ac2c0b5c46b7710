"""Model files that are damaged, claim too much, or unfold without end."""

import base64
import itertools
import json
import os
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hostile.case import INSPECT, PRUNE, Case, data, model, write

MADE_UP = ("m.onnx", "o.onnx", "--method", "magnitude")
COMPARE = ("compare", "m.onnx", "m.onnx", "--data", "d.npz", "--seconds", "0")
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _bytes(content: bytes, folder: Path) -> None:
    (folder / "m.onnx").write_bytes(content)
    data(folder)


def _whole() -> bytes:
    return model().SerializeToString()


def _holes(folder: Path) -> None:
    with (folder / "m.onnx").open("wb") as out:
        out.truncate(1 << 40)
    data(folder)


def _zeros(folder: Path) -> None:
    (folder / "m.onnx").symlink_to("/dev/zero")
    data(folder)


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "m.onnx")
    data(folder)


def _dims(dims: list[int], folder: Path) -> None:
    proto = model()
    proto.graph.initializer[0].dims[:] = dims
    write(proto, folder)


def _many_dims(folder: Path) -> None:
    _dims([1] * 2_000_000 + [4, 16], folder)


def _no_type(folder: Path) -> None:
    proto = model()
    proto.graph.initializer[0].data_type = 4711
    write(proto, folder)


def _input(size: int, folder: Path) -> None:
    proto = model([helper.make_node("ReduceSum", ["z"], ["s"]),
                   helper.make_node("Add", ["h", "s"], ["y"])])  # fmt: skip
    proto.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, size]))
    write(proto, folder)


def _value_info(folder: Path) -> None:
    proto = model([helper.make_node("Relu", ["h"], ["y"])])
    claim = helper.make_tensor_value_info("h", TensorProto.FLOAT, [1 << 40, 1 << 40])
    proto.graph.value_info.append(claim)
    write(proto, folder)


def _filled(size: int, folder: Path) -> None:
    shape = numpy_helper.from_array(np.array([size], np.int64), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["s"]),
        helper.make_node("Add", ["h", "s"], ["y"]),
    ]
    write(model(nodes, [shape]), folder)


def _weight_filled(folder: Path) -> None:
    """The weight of a second layer is made of nothing."""
    shape = numpy_helper.from_array(np.array([16, 1 << 36], np.int64), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["c"]),
        helper.make_node("MatMul", ["h", "c"], ["y"]),
    ]
    write(model(nodes, [shape]), folder)


def _expanded(folder: Path) -> None:
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 20, 1, 1], np.int64), "shape")
    nodes = [
        helper.make_node("Expand", ["h", "shape"], ["e"]),
        helper.make_node("ReduceSum", ["e"], ["y"]),
    ]
    write(model(nodes, [shape]), folder)


def _range(folder: Path) -> None:
    numbers = [
        numpy_helper.from_array(np.int64(value), name)
        for name, value in (("from", 0), ("to", 1 << 50), ("step", 1))
    ]
    nodes = [
        helper.make_node("Range", ["from", "to", "step"], ["r"]),
        helper.make_node("ReduceMax", ["r"], ["m"]),
        helper.make_node("Cast", ["m"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["h", "f"], ["y"]),
    ]
    write(model(nodes, numbers), folder)


def _sparse(folder: Path) -> None:
    proto = model()
    sparse = proto.graph.sparse_initializer.add(dims=[1 << 20, 1 << 20])
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "s"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array([1 << 60]), "i"))
    proto.graph.node.add(op_type="MatMul", input=["h", "s"], output=["y"], name="sparse")
    write(proto, folder)


def _nested(levels: int, folder: Path) -> None:
    """Ifs, one in the branch of the other; made of bytes, as writers refuse to nest so deep."""
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    graph = onnx.GraphProto(name="g")
    graph.node.add(op_type="Identity", input=["h"], output=["y"])
    graph.output.add(name="y")
    inner = graph.SerializeToString()
    for level in range(levels):
        branches = b"".join(
            _field(5, _field(1, name) + _field(6, body) + b"\xa0\x01\x05")
            for name, body in ((b"then_branch", inner), (b"else_branch", graph.SerializeToString()))
        )
        node = _field(1, b"c") + _field(2, b"y") + _field(3, b"if%d" % level) + _field(4, b"If")
        inner = _field(1, node + branches) + _field(2, b"g") + _field(12, _field(1, b"y"))
    proto = model()
    del proto.graph.output[:]
    proto.graph.initializer.append(condition)
    whole = proto.graph.SerializeToString() + inner
    proto.ClearField("graph")
    _bytes(proto.SerializeToString() + _field(7, whole), folder)


def _field(number: int, content: bytes) -> bytes:
    """A field of the wire format that has a length."""
    size, length = len(content), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


def _functions(calls: dict[str, list[str]], folder: Path) -> None:
    """Functions, each of which calls others one after the other; the model calls the first."""
    functions = []
    for name, called in calls.items():
        names = ["a", *(f"t{i}" for i in range(len(called) - 1)), "b"]
        nodes = [
            helper.make_node(one, [names[i]], [names[i + 1]], domain="" if one == "Relu" else "own")
            for i, one in enumerate(called)
        ]
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
        functions.append(helper.make_function("own", name, ["a"], ["b"], nodes, imports))
    call = helper.make_node(next(iter(calls)), ["h"], ["y"], domain="own")
    write(model([call], functions=functions), folder)


def _doubling(folder: Path) -> None:
    levels = 30
    calls = {f"F{i}": [f"F{i + 1}"] * 2 for i in range(levels)}
    _functions({**calls, f"F{levels}": ["Relu"]}, folder)


def _cycle(folder: Path) -> None:
    nodes = [
        helper.make_node("Add", ["h", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
    ]
    write(model(nodes), folder)


def _chain(folder: Path) -> None:
    names = ["h", *(f"t{i}" for i in range(20_000))]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in itertools.pairwise(names)]
    write(model(nodes), folder)


def _packed(record: bytes, nodes: list[onnx.NodeProto], folder: Path) -> None:
    proto = model(nodes)
    proto.metadata_props.add(key="onnx_sipp.packed", value=base64.b64encode(record).decode())
    write(proto, folder)


def _record_bomb(folder: Path) -> None:
    maker = zlib.compressobj(9)
    piece = bytes(1 << 24)
    record = b"".join(maker.compress(piece) for _ in range(256)) + maker.flush()
    _packed(record, [], folder)


def _record_cycle(folder: Path) -> None:
    holder = TensorProto(name="b", data_type=TensorProto.FLOAT, dims=[4])
    text = base64.b64encode(holder.SerializeToString()).decode()
    record = {"prefix": "p", "initializers": [[0, text]], "constants": []}
    nodes = [
        helper.make_node("Add", ["b", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Add", ["h", "b"], ["y"]),
    ]
    _packed(zlib.compress(json.dumps(record).encode()), nodes, folder)


def _case(
    name: str, make: Callable[[Path], object], *more: tuple[str, ...], **options: bool
) -> Case:
    return Case(f"model: {name}", make, more or (PRUNE, INSPECT), **options)


CASES = [
    _case("an empty file", partial(_bytes, b"")),
    _case("random bytes", lambda f: _bytes(np.random.default_rng(2).bytes(100_000), f)),
    _case("half of a file", lambda f: _bytes(_whole()[: len(_whole()) // 2], f)),
    _case("a file without its last byte", lambda f: _bytes(_whole()[:-1], f)),
    _case("a tebibyte of holes", _holes),
    _case("a link to `/dev/zero`", _zeros),
    _case("a named pipe", _pipe),
    _case("dims of a weight that claim 16 EiB", partial(_dims, [1 << 31, 1 << 31])),
    _case("dims of a weight whose product overflows", partial(_dims, [1 << 62, 1 << 62])),
    _case("dims that overflow to the right size", partial(_dims, [1 << 62, 4, 16, 1 << 2])),
    _case("negative dims", partial(_dims, [-4, -16])),
    _case("2,000,000 dims", _many_dims),
    _case("an unknown element type", _no_type, PRUNE),
    _case("an input of 4 TiB, made up", partial(_input, 1 << 40), MADE_UP),
    _case("an input of half the memory, made up", partial(_input, MEMORY // 8), MADE_UP),
    _case("value_info that claims 4 YiB", _value_info, PRUNE, INSPECT, either=True),
    _case("ConstantOfShape of 4 PiB", partial(_filled, 1 << 50), PRUNE),
    _case("ConstantOfShape of the whole memory", partial(_filled, MEMORY * 49 // 200), PRUNE,
          COMPARE),
    _case("a weight made by ConstantOfShape, 4 TiB", _weight_filled, PRUNE),
    _case("Expand to 64 TiB", _expanded, PRUNE, COMPARE),
    _case("Range of 8 PiB", _range, PRUNE, COMPARE),
    _case("a sparse initializer of 4 TiB, indices outside", _sparse, PRUNE),
    _case("25 Ifs nested", partial(_nested, 25), PRUNE, INSPECT, either=True),
    _case("60 Ifs nested", partial(_nested, 60)),
    _case("5,000 Ifs nested", partial(_nested, 5_000)),
    _case("a function that calls itself", partial(_functions, {"F": ["F"]})),
    _case("functions that call each other", partial(_functions, {"F": ["G"], "G": ["F"]})),
    _case("functions that unfold to 2³⁰ nodes", _doubling, PRUNE, INSPECT, COMPARE),
    _case("a graph that goes round", _cycle, PRUNE),
    _case("20,000 nodes in a row", _chain, PRUNE, INSPECT, either=True),
    _case("packed: a record of 4 GiB of zeros", _record_bomb, ("unpack", "m.onnx", "o.onnx")),
    _case("packed: a record for a graph that goes round", _record_cycle,
          ("unpack", "m.onnx", "o.onnx")),
]  # fmt: skip
