"""External data that leads elsewhere, and outputs that would."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from onnx import TensorProto, helper

from hostile.case import INSPECT, PRUNE, SECRET, WEIGHT, Case, external, model, write

PACK = ("pack", "m.onnx", "o.onnx")
ALL = (PRUNE, INSPECT, PACK)


def _at(location: str, folder: Path) -> None:
    write(external({"location": location}), folder)


def _absolute(folder: Path) -> None:
    _at(str(folder.parent / "secret"), folder)


def _link(folder: Path) -> None:
    (folder / "w.bin").symlink_to(folder.parent / "secret")
    _at("w.bin", folder)


def _folder_link(folder: Path) -> None:
    (folder / "sub").symlink_to(folder.parent)
    _at("sub/secret", folder)


def _hard_link(folder: Path) -> None:
    os.link(folder.parent / "secret", folder / "w.bin")
    _at("w.bin", folder)


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "w.bin")
    _at("w.bin", folder)


def _is_folder(folder: Path) -> None:
    (folder / "w.bin").mkdir()
    _at("w.bin", folder)


def _in_attribute(folder: Path) -> None:
    value = external({"location": "../secret"}).graph.initializer[0]
    node = helper.make_node("Constant", [], ["c"], value=value)
    write(model([node, helper.make_node("MatMul", ["h", "c"], ["y"])]), folder)


def _in_function(folder: Path) -> None:
    value = external({"location": "../secret"}).graph.initializer[0]
    nodes = [
        helper.make_node("Constant", [], ["c"], value=value),
        helper.make_node("Identity", ["c"], ["b"]),
    ]
    imports = [helper.make_opsetid("", 17)]
    function = helper.make_function("own", "F", ["a"], ["b"], nodes, imports)
    call = helper.make_node("F", ["h"], ["y"], domain="own")
    write(model([call], functions=[function]), folder)


def _in_sparse(folder: Path) -> None:
    proto = model()
    sparse = proto.graph.sparse_initializer.add(dims=[4, 16])
    sparse.values.CopyFrom(external({"location": "../secret"}, [8]).graph.initializer[0])
    sparse.values.name = "s"
    sparse.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [8], range(8)))
    write(proto, folder)


def _beside(entries: dict[str, str], folder: Path, dims: tuple[int, ...] = WEIGHT.shape) -> None:
    (folder / "w.bin").write_bytes(WEIGHT.tobytes())
    write(external({"location": "w.bin", **entries}, dims), folder)


def _holes(folder: Path) -> None:
    """A file of a tebibyte that takes no room on the disk."""
    with (folder / "w.bin").open("wb") as out:
        out.truncate(1 << 40)
    write(external({"location": "w.bin"}, [4, 1 << 36]), folder)


def _outputs_are_links(folder: Path) -> None:
    _beside({}, folder)
    for name in ("o.onnx", "o.onnx.data", "r.html", "k.npz"):
        (folder / name).symlink_to(folder.parent / "secret")


def _output_is_hard_link(folder: Path) -> None:
    _beside({}, folder)
    os.link(folder.parent / "secret", folder / "o.onnx.data")


def _log_is_link(folder: Path) -> None:
    write(model(), folder)
    (folder / "log").symlink_to(folder.parent / "secret")


def _output_is_input(folder: Path) -> None:
    write(model(), folder)
    (folder / "o.onnx").symlink_to("m.onnx")


def _data_of_output_is_input(folder: Path) -> None:
    (folder / "o.onnx.data").write_bytes(WEIGHT.tobytes())
    write(external({"location": "o.onnx.data"}), folder)


def _secret_kept(folder: Path, out: str, err: str) -> str:
    del out, err
    secret = (folder.parent / "secret").read_bytes()
    left = [path.name for path in folder.iterdir() if path.is_symlink() and path.exists()]
    return "" if secret == SECRET and not left else "what a link points to was written"


def _case(name: str, make: Callable[[Path], object], *, all_three: bool = False) -> Case:
    return Case(f"external data: {name}", make, ALL if all_three else (PRUNE, INSPECT))


CASES = [
    _case("`../secret`", partial(_at, "../secret"), all_three=True),
    _case("`sub/../../secret`", partial(_at, "sub/../../secret")),
    _case("`..\\secret`", partial(_at, "..\\secret")),
    _case("an absolute path", _absolute, all_three=True),
    _case("`/proc/self/mem`", partial(_at, "/proc/self/mem")),
    _case("a symbolic link", _link, all_three=True),
    _case("a symbolic link among the folders", _folder_link, all_three=True),
    _case("a hard link", _hard_link, all_three=True),
    _case("a named pipe", _pipe),
    _case("a folder", _is_folder),
    _case("the model's folder (`.`)", partial(_at, ".")),
    _case("no location", partial(_at, "")),
    _case("a name with a zero byte", partial(_at, "w\0.bin")),
    _case("a name of 100,000 characters", partial(_at, "w" * 100_000)),
    _case("in a Constant node", _in_attribute),
    _case("in a function", _in_function),
    _case("in a sparse initializer", _in_sparse),
    _case("a missing file", partial(_at, "w.bin")),
    _case("an offset beyond the file", partial(_beside, {"offset": "4096"})),
    _case("an offset of 2⁶³", partial(_beside, {"offset": str(1 << 63)})),
    _case("an offset of 10,000 digits", partial(_beside, {"offset": "9" * 10_000})),
    _case("a negative offset", partial(_beside, {"offset": "-4"})),
    _case("a length beyond the file", partial(_beside, {"length": str(1 << 50)})),
    _case("a length less than dims need", partial(_beside, {"length": "4"})),
    _case("a negative length", partial(_beside, {"length": "-1"})),
    _case("a length that is no number", partial(_beside, {"length": "1e3"})),
    _case("dims that claim a tebibyte", partial(_beside, {}, dims=(1 << 19, 1 << 19))),
    _case("dims whose product overflows", partial(_beside, {}, dims=(1 << 62, 1 << 62))),
    Case("external data: a tebibyte of holes", _holes, (PRUNE,)),
    Case(
        "outputs: links to a file elsewhere stand there",
        _outputs_are_links,
        ((*PRUNE, "--report", "r.html", "--masks", "k.npz"),),
        refused=False,
        check=_secret_kept,
        new=("o.onnx", "o.onnx.data", "r.html", "k.npz"),
    ),
    Case(
        "outputs: a hard link to a file elsewhere stands there",
        _output_is_hard_link,
        (PRUNE,),
        refused=False,
        check=_secret_kept,
    ),
    Case("outputs: the log is a link to a file elsewhere", _log_is_link,
         ((*PRUNE, "--log-file", "log"),)),
    Case("outputs: a link to the input", _output_is_input, (PRUNE, PACK)),
    Case("outputs: the data file would be that of the input", _data_of_output_is_input,
         (PRUNE, PACK)),
]  # fmt: skip
