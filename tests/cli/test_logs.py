"""Bars, lines, a file, or nothing."""

import json
import logging

import numpy as np
import pytest
from small_models import make_model, weights

CALIB = ("--calib", "data.npz")


@pytest.fixture(autouse=True)
def clean():
    """No handler stays behind."""
    yield
    left = logging.getLogger("onnx_sipp").handlers
    assert [type(handler) for handler in left] == [logging.NullHandler]


def test_quiet(run, folder):
    assert run("in.onnx", "out.onnx", *CALIB, "-q") == (0, "", "")
    assert (folder / "out.onnx").exists()
    assert run("inspect", "in.onnx", "-q") == (0, "", "")
    assert run("pack", "out.onnx", "small.onnx", "--quiet") == (0, "", "")


def test_every_command_that_takes_long_has_a_log(run, folder):
    fast = ("--num-samples", 10, "-q", "--log-file")
    swept = run("sweep", "in.onnx", *CALIB, "--sparsities", "0.5", "--json", "s.json", *fast, "a")
    both = ("in.onnx", "in.onnx", "--data", "data.npz", "--seconds", 0, "--json", "c.json")
    assert swept == run("compare", *both, *fast, "b") == (0, "", "")
    for name in ("a", "b"):
        assert "comparing outputs: " in (folder / name).read_text(encoding="utf-8")
    assert json.loads(run("compare", *both[:-1], "-").out)["outputs"]


def test_quiet_still_tells_errors(run):
    result = run("in.onnx", "out.onnx", "--calib", "missing.npz", "-q")
    assert result.code == 2
    assert "missing.npz" in result.err


@pytest.mark.parametrize("data", ["data.npz", "none.npz"])
def test_a_script_that_logs_has_nothing_else_printed(run, folder, monkeypatch, data):
    """It gives the root logger a handler, which must not get the lines that `-v` prints."""
    monkeypatch.setattr(logging.root, "handlers", [])  # as without a test runner
    script = (
        "import logging, numpy as np\n"
        "def data():\n"
        "    logging.warning('from a script')\n"
        f"    for row in np.load({data!r})['x']:\n"
        "        yield {'x': row[None]}\n"
    )
    (folder / "loader.py").write_text(script, encoding="utf-8")
    result = run("in.onnx", "out.onnx", "--data-loader-script", "loader.py:data", "-q")
    lines = result.err.splitlines()
    assert lines[0] == "WARNING:root:from a script"
    assert result.code == len(lines) - 1 == (data == "none.npz"), lines  # the message alone
    logger = logging.getLogger("onnx_sipp")
    assert (logger.propagate, logger.level) == (True, logging.NOTSET)


def test_quiet_ends_with_the_command(run):
    run("in.onnx", "out.onnx", *CALIB, "-q")
    assert run("inspect", "in.onnx").out


def test_verbose_has_a_line_per_step(run):
    result = run("in.onnx", "out.onnx", *CALIB, "-v")
    assert result.code == 0
    lines = result.err.splitlines()
    for step in ("calibrating", "measuring layers", "comparing outputs"):
        begun = next(n for n, line in enumerate(lines) if line.endswith(f"INFO {step} …"))
        assert any(f"{step}: " in line for line in lines[begun:])
    assert "Layers" in result.out


def test_log_file(run, folder):
    assert run("in.onnx", "out.onnx", *CALIB, "--log-file", "run.log").err == ""
    first = (folder / "run.log").read_text(encoding="utf-8")
    assert ": in.onnx out.onnx --calib data.npz --log-file run.log\n" in first
    assert "comparing outputs: " in first
    run("in.onnx", "out.onnx", *CALIB, "--log-file", "run.log", "-q")
    assert (folder / "run.log").read_text(encoding="utf-8").startswith(first)


def test_the_log_has_the_trace_of_an_error(run, folder, monkeypatch):
    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("onnx_sipp.calibration.runner.Runner.run", fail)
    result = run("in.onnx", "out.onnx", *CALIB, "--log-file", "run.log", "-v")
    assert result.code == 1
    text = (folder / "run.log").read_text(encoding="utf-8")
    assert "ended by KeyboardInterrupt" in text
    assert "Traceback" in text
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("in.onnx", "would overwrite an input"),
        ("data.npz", "would overwrite an input"),
        ("out.onnx", "written twice"),
        ("missing/run.log", "the folder 'missing' does not exist"),
        (".", "is a folder"),
    ],
)
def test_the_log_harms_no_file(refused, path, message):
    refused(2, message, "in.onnx", "out.onnx", *CALIB, "--log-file", path)


def test_standard_output_is_json_and_nothing_else(run, folder):
    result = run("in.onnx", "out.onnx", *CALIB, "--json", "-", "-v")
    assert json.loads(result.out)["zeros"] == 28
    assert json.loads(run("inspect", "in.onnx", "--json", "-").out)["layers"]
    packed = run("pack", "out.onnx", "small.onnx", "--json", "-", "-q")
    assert "ratio" in json.loads(packed.out)
    assert not (folder / "-").exists()


def test_reports(run, folder):
    names = ("a.html", "b.md", "c.json")
    reports = [part for name in names for part in ("--report", name)]
    assert run("in.onnx", "out.onnx", *CALIB, *reports).code == 0
    assert (folder / "a.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert (folder / "b.md").read_text(encoding="utf-8").startswith("# in.onnx, pruned")
    data = json.loads((folder / "c.json").read_text(encoding="utf-8"))
    assert data["bytes_after"] == (folder / "out.onnx").stat().st_size


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        (["report.txt"], "ends in .html, .md or .json, not 'report.txt'"),
        (["a.html", "missing/b.html"], "the folder 'missing' does not exist"),
    ],
)
def test_wrong_reports_are_refused_before_any_work(refused, reports, message):
    options = [part for name in reports for part in ("--report", name)]
    refused(2, message, "in.onnx", "out.onnx", *CALIB, *options)


def test_names_cannot_write_to_the_terminal(run, folder):
    import onnx

    evil = "\x1b[2Jlayer\x07"
    proto = make_model([("MatMul", "x w", "y", {"name": evil})], {"w": weights(4, 3)})
    onnx.save(proto, "evil.onnx")
    np.savez("x.npz", x=weights(20, 4, seed=3))
    for result in (
        run("evil.onnx", "out.onnx", "--calib", "x.npz"),
        run("inspect", "evil.onnx"),
        run("inspect", "evil.onnx", "--exclude-nodes", "layer"),
    ):
        assert "\x1b" not in result.out + result.err
        assert "\x07" not in result.out + result.err
        assert r"\x1b[2Jlayer\x07" in result.out + result.err
