"""Configurations that would act, and names that would."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from hostile.case import INSPECT, PRUNE, Case, model, write

CONFIG = (*PRUNE, "--config", "c.yaml")
SHOWN = "r.html", "r.md", "r.json", "log", "k.npz"
TELL = (*PRUNE, "-v", "--log-file", "log", "--report", "r.html", "--report", "r.md", "--json",
        "r.json", "--masks", "k.npz")  # fmt: skip
COMPARE = ("compare", "m.onnx", "m.onnx", "--data", "d.npz", "--seconds", "0", "--html", "q.html")
SWEEP = ("sweep", "m.onnx", "--calib", "d.npz", "--method", "magnitude", "--sparsities", "0.5")
# What terminals obey: the screen, the clipboard, the title; and a mark that turns the writing.
ESCAPES = "\x1b[2J\x1b]52;c;aGk=\x07\x1b]0;title\x07\x9b31m\r\b\u202etxt"
SCRIPT = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


def _config(text: str, folder: Path) -> None:
    write(model(), folder)
    (folder / "c.yaml").write_text(text, encoding="utf-8")


def _laughs() -> str:
    lines = (f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10))
    return "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x]", *lines, "exclude_nodes: *a9"])


def _laughs_inside(depth: int) -> str:
    """The same where a value is expected, not as keys of their own."""
    text = "&a0 [x, x, x, x, x, x, x, x, x]"
    for level in range(1, depth):
        text = f"&a{level} [{text}, {', '.join([f'*a{level - 1}'] * 8)}]"
    return f"exclude_nodes: {text}"


def _report(folder: Path) -> None:
    """A report of forty megabytes, which would say what to repeat."""
    _config('{"schema_version": 1, "options": {}, "x": [' + "[1]," * 10_000_000 + "1]}", folder)


def _named(name: str, folder: Path) -> None:
    proto = model(name=name)
    proto.graph.node[0].output[0] = proto.graph.output[0].name = name
    proto.graph.node[0].input[1] = proto.graph.initializer[0].name = f"w{name}"
    proto.producer_name = proto.graph.name = name
    write(proto, folder)


def _bad_text(folder: Path) -> None:
    """Names that are no UTF-8."""
    _named("NAME", folder)
    content = (folder / "m.onnx").read_bytes().replace(b"NAME", b"\xff\xfe\xc3\x28")
    (folder / "m.onnx").write_bytes(content)


def _script_beside(folder: Path) -> None:
    write(model(), folder)
    for name in ("judge", "data", "conftest", "sitecustomize", "numpy", "onnx"):
        text = f"open({str(folder / 'ran')!r}, 'w').close()\ndef accuracy(s): return 1.0\n"
        (folder / f"{name}.py").write_text(text)
    proto = model()
    for key in ("eval_script", "custom_ops", "onnx_sipp.eval_script", "data_loader_script"):
        proto.metadata_props.add(key=key, value="judge.py:accuracy")
    (folder / "m.onnx").write_bytes(proto.SerializeToString())


def _tame(folder: Path, out: str, err: str) -> str:
    """Whether nothing that is shown has a character that a terminal obeys."""
    texts = {"standard output": out, "standard error": err}
    for name in ("log", "r.md", "r.json"):
        if (folder / name).exists():
            texts[name] = (folder / name).read_text(encoding="utf-8")
    for what, text in texts.items():
        if any(not char.isprintable() and char != "\n" for char in text):
            return f"{what} has control characters"
    return _escaped(folder, out, err)


def _escaped(folder: Path, out: str, err: str) -> str:
    """Whether the pages have no element and no attribute of the name's."""
    del out, err
    for page in ("r.html", "q.html"):
        text = (folder / page).read_text(encoding="utf-8") if (folder / page).exists() else ""
        if any(bad in text for bad in ("<script>alert", "<img src=x", "\x1b", "\u202e", "\x9b")):
            return f"{page} is not escaped"
    return ""


def _inside_masks(folder: Path, out: str, err: str) -> str:
    """Whether the archive of masks unpacks into its folder only."""
    del out, err
    names = np.load(folder / "k.npz").files
    bad = [name for name in names if ".." in Path(name).parts]
    return f"masks are called {bad}" if bad else ""


def _nothing_ran(folder: Path, out: str, err: str) -> str:
    del out, err
    return "a script ran" if (folder / "ran").exists() else ""


def _yaml(name: str, text: str, **options: bool) -> Case:
    return Case(f"configuration: {name}", partial(_config, text), (CONFIG,), **options)


def _shown(
    name: str, make: Callable[[Path], object], check: Callable[[Path, str, str], str],
    commands: Sequence[Sequence[str]] = (TELL, INSPECT, COMPARE, SWEEP), **options: bool,
) -> Case:  # fmt: skip
    new = ("o.onnx", "q.html", *SHOWN)
    return Case(f"names: {name}", make, commands, check=check, new=new, **options)


CASES = [
    _yaml("a tag that makes an object", "exclude_nodes: !!python/object/apply:os.mkdir [ran]"),
    _yaml("a tag on a scalar", "sparsity: !!python/name:os.system 0.5"),
    _yaml("a tag on a key", "!!python/name:os.system sparsity: 0.5", either=True),
    _yaml("aliases that unfold to 9¹⁰, as keys", _laughs()),
    _yaml("aliases that unfold to 9⁸, in a value", _laughs_inside(8)),
    _yaml("an alias that contains itself", "exclude_nodes: &a [*a]"),
    _yaml("100,000 brackets", "exclude_nodes: " + "[" * 100_000),
    _yaml("brackets of 8 MB that close", "exclude_nodes: [" + "[]," * 2_700_000 + "]"),
    _yaml("a key of 1,000,000 characters", f"{'k' * 1_000_000}: 1"),
    _yaml("a number of 100,000 digits", f"seed: {'9' * 100_000}"),
    _yaml("random bytes", "\x00\x01\x02\ufffe{{{"),
    _yaml("several documents", "sparsity: 0.5\n---\nsparsity: 0.6"),
    Case("configuration: a report of 40 MB of brackets", _report, (CONFIG,), either=True),
    _shown("HTML and script", partial(_named, SCRIPT), _escaped, refused=False),
    _shown("terminal escapes", partial(_named, ESCAPES), _tame, refused=False),
    _shown("terminal escapes where the model is refused",
           lambda folder: _broken(ESCAPES, folder), _tame, (TELL,)),
    _shown("`../../x`", partial(_named, "../../x"), _inside_masks, (TELL,), refused=False),
    _shown("1,000,000 characters", partial(_named, "n" * 1_000_000), _escaped, (TELL, INSPECT),
           either=True),
    _shown("no UTF-8", _bad_text, _tame, either=True),
    Case("scripts: beside the model, and named in its metadata", _script_beside, (PRUNE, COMPARE),
         refused=False, check=_nothing_ran, new=("o.onnx", "q.html")),
]  # fmt: skip


def _broken(name: str, folder: Path) -> None:
    proto = model(name=name)
    proto.graph.initializer[0].name = proto.graph.node[0].input[1] = name
    proto.graph.node.add(op_type=name, name=name, input=["h"], output=["y"], domain=name)
    write(proto, folder)
