"""What hostile input and a hostile environment do to the command."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from small_models import make_model, mlp, weights

from onnx_sipp.cli import guard
from onnx_sipp.cli.guard import bounded_memory, refuse_little_memory
from onnx_sipp.errors import SippError

COMMAND = [sys.executable, "-m", "onnx_sipp"]
ESCAPES = "\x1b[2J\x9b31m\u202etxt"


def started(folder, *arguments, **options):
    """The command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=environment, check=False, text=True, **options
    )


def test_a_claim_of_the_whole_memory_is_refused_and_not_paid(folder):
    """Within a quarter of what is free, as if the machine had no more."""
    shape = numpy_helper.from_array(np.array([1 << 29]), "shape")  # 2 GiB
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("ConstantOfShape", ["shape"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["s"]),
        helper.make_node("Add", ["h", "s"], ["y"]),
    ]
    model = make_model(nodes, {"w": weights(4, 8), "shape": shape}, opset=17)
    onnx.save(model, folder / "claim.onnx")
    script = (
        "import resource; from onnx_sipp.cli import guard, main; "
        "guard._machine = lambda: 1 << 30; main.main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(
        [sys.executable, "-c", script, "claim.onnx", "o.onnx", "--calib", "data.npz",
         "--method", "magnitude"],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1, result.stderr
    assert "onnx-sipp: onnxruntime" in result.stderr
    assert not (folder / "o.onnx").exists()


def test_the_limit_is_what_there_is_and_goes_again(monkeypatch):
    before = resource.getrlimit(resource.RLIMIT_DATA)
    monkeypatch.setattr(guard, "_machine", lambda: 8 << 30)
    monkeypatch.setattr(guard, "_CGROUP", Path("/nonexistent"))
    with bounded_memory():
        limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
        assert 8 << 30 < limit < 64 << 30
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_the_limit_of_a_container(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text(f"{2 << 30}\n")
    monkeypatch.setattr(guard, "_CGROUP", tmp_path)
    own = guard._kibibytes(Path("/proc/self/status"), "VmData")
    assert abs(guard._room() - own - (2 << 30)) < 64 << 20
    (tmp_path / "memory.max").write_text("max\n")
    assert guard._room() - own > 2 << 30


def test_too_little_memory_is_told_at_the_start(folder):
    limit = 300 << 20
    result = started(
        folder, "inspect", "in.onnx", capture_output=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    assert result.returncode == 1
    assert "MiB of memory are needed, but only 300 may be had" in result.stderr
    refuse_little_memory()


@pytest.mark.parametrize("more", [[], ["--json", "-"]])
def test_nobody_takes_what_is_printed(folder, more):
    with Path("/dev/full").open("w") as full:
        result = started(folder, "inspect", "in.onnx", *more, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1
    assert result.stderr == (
        "onnx-sipp: cannot print the result: No space left on device; what goes to files is "
        "written\n"
    )


def test_a_broken_pipe(folder):
    reading, writing = os.pipe()
    os.close(reading)
    result = started(folder, "inspect", "in.onnx", stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert result.returncode == 1
    assert "cannot print the result: Broken pipe" in result.stderr


@pytest.mark.parametrize("stream", [1, 2])
def test_a_closed_stream(folder, stream):
    """The next file that is opened must not take its place."""
    result = started(
        folder, "inspect", "in.onnx", "--json", "found.json", preexec_fn=lambda: os.close(stream)
    )
    assert result.returncode == 0
    assert json.loads((folder / "found.json").read_text())["layers"]


def test_names_do_not_act_in_what_is_written(run, folder):
    model = mlp()
    model.graph.node[0].name = ESCAPES
    model.graph.output[0].name = model.graph.node[-1].output[0] = ESCAPES
    onnx.save(model, folder / "in.onnx")
    prune = ("in.onnx", "o.onnx", "--calib", "data.npz", "--method", "magnitude")
    told = [
        run(*prune, "-v", "--log-file", "log", "--json", "-", "--report", "r.html"),
        run("inspect", "in.onnx", "--json", "-"),
        run("inspect", "in.onnx"),
    ]
    assert [result.code for result in told] == [0, 0, 0]
    texts = [text for result in told for text in (result.out, result.err)]
    texts += [(folder / name).read_text(encoding="utf-8") for name in ("log", "r.html")]
    for text in texts:
        assert all(char.isprintable() or char == "\n" for char in text)
    names = [layer["name"] for layer in json.loads(told[0].out)["layers"]]
    assert ESCAPES in names  # JSON says the same, written in another way


def test_messages_end_somewhere(run, folder):
    model = mlp()
    model.graph.initializer[0].name = "w" * 100_000
    model.graph.initializer[0].dims[:] = [-1, -1]
    onnx.save(model, folder / "in.onnx")
    result = run("inspect", "in.onnx")
    assert result.code == 1
    assert len(result.err) < 5000
    assert "characters more" in result.err


def test_a_log_that_is_a_link_is_refused(refused, folder):
    (folder / "precious").write_text("precious")
    (folder / "log").symlink_to("precious")
    refused(
        2, "is a symbolic link", "in.onnx", "o.onnx", "--calib", "data.npz", "--log-file", "log"
    )


def test_masks_stay_in_their_folder(run, folder):
    model = mlp()
    model.graph.node[0].name = "../../x"
    onnx.save(model, folder / "in.onnx")
    prune = ("in.onnx", "o.onnx", "--calib", "data.npz", "--method", "magnitude")
    assert run(*prune, "--masks", "k.npz").code == 0
    assert "..%2F..%2Fx" in np.load(folder / "k.npz").files


def test_no_model_is_written_if_masks_cannot_be(refused, folder):
    model = mlp()
    model.graph.node[0].name = "n" * 70_000
    onnx.save(model, folder / "in.onnx")
    prune = ("in.onnx", "o.onnx", "--calib", "data.npz", "--method", "magnitude")
    refused(1, "too long for a file of masks", *prune, "--masks", "k.npz")


def test_libraries_that_cannot_be_loaded(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx_sipp.inspection", None)
    refused(1, "a library cannot be loaded", "inspect", "in.onnx")


def test_little_memory_by_data(monkeypatch):
    monkeypatch.setattr(guard, "_LEAST_DATA", 1 << 60)
    with bounded_memory(), pytest.raises(SippError, match="ulimit -d"):
        refuse_little_memory()
