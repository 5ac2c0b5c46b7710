"""The group of commands."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import onnx_sipp
from onnx_sipp.cli.main import main


def test_help(run):
    result = run("--help")
    assert result.code == 0
    for expected in ("prune", "inspect", "Exit codes", "\n  onnx-sipp inspect in.onnx\n"):
        assert expected in result.out
    assert run("-h").out == result.out


@pytest.mark.parametrize("command", ["prune", "inspect"])
def test_help_of_commands(run, command):
    result = run(command, "--help")
    assert result.code == 0
    assert "--exclude-nodes" in result.out


def test_help_shows_examples_line_by_line(run):
    lines = run("prune", "--help").out.splitlines()
    assert "  onnx-sipp in.onnx out.onnx --calib samples.npz --sparsity 0.7" in lines


def test_version(run):
    assert run("--version") == (0, f"onnx-sipp, version {onnx_sipp.__version__}\n", "")


def test_no_arguments_show_the_help(run):
    result = run()
    assert result.code == 2
    assert "Usage: onnx-sipp" in result.out + result.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in.onnx"], "Missing argument 'OUT.onnx'"),
        (["in.onnx", "out.onnx", "more"], "unexpected extra argument"),
        (["in.onnx", "out.onnx", "--sparsty", "1"], "--sparsity"),
        (["in.onnx", "out.onnx", "--sparsity", "much"], "'much' is not a valid float"),
        (["in.onnx", "out.onnx", "--method", "best"], "'best' is not one of"),
        (["in.onnx", "out.onnx", "--input-shapes", "1,2"], "is not of the form name:1,3,224,224"),
        (["in.onnx", "out.onnx", "--input-shapes", "x:"], "is not of the form"),
        (["in.onnx", "out.onnx", "--input-shapes", "x:1,,2"], "is not of the form"),
        (["in.onnx", "out.onnx", "--input-shapes", "x:a,b"], "is not of the form"),
        (["inspekt", "in.onnx"], "there is no command 'inspekt'; did you mean 'inspect'?"),
        (["inspect"], "Missing argument 'IN.onnx'"),
    ],
)
def test_wrong_usage(run, folder, arguments, message):
    result = run(*arguments)
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err
    assert sorted(path.name for path in folder.iterdir()) == ["data.npz", "in.onnx"]


def test_a_file_may_be_called_like_a_command(run, folder):
    (folder / "in.onnx").rename(folder / "inspekt")
    assert run("inspekt", "out.onnx", "--calib", "data.npz").code == 0


def test_help_needs_no_runtime():
    """`onnx-sipp --help` must not wait for onnxruntime, numba or onnx."""
    code = (
        "import sys\n"
        "from onnx_sipp.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'onnxruntime', 'numba', 'onnx'} & set(sys.modules)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_the_package_runs_as_a_module(folder):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "onnx_sipp", "in.onnx", "out.onnx", "--calib"]
    for data, code in (("data.npz", 0), ("none.npz", 2)):
        result = subprocess.run(
            [*command, data, "-q"], capture_output=True, text=True, check=False, env=environment
        )
        assert result.returncode == code, result.stderr
        assert ("onnx-sipp: " in result.stderr) == (code > 0)
    assert (folder / "out.onnx").exists()


@pytest.mark.parametrize(("argument", "code"), [("--version", 0), ("--nonsense", 2)])
def test_the_process_ends_at_once_but_not_before_all_is_done(argument, code):
    program = (
        "import atexit\n"
        "from onnx_sipp.cli.main import run\n"
        "class Late:\n"
        "    def __del__(self): print('taken down')\n"
        "late = Late()\n"
        "atexit.register(print, 'at exit')\n"
        "run()\n"
    )
    command = [sys.executable, "-c", program, argument]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == code
    assert result.stdout.splitlines()[-1] == "at exit"
    assert ("nonsense" in result.stderr) == (code == 2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_what_cannot_be_printed_is_a_failure():
    command = [sys.executable, "-c", "from onnx_sipp.cli.main import run; run()", "--version"]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert result.returncode != 0


def test_once_all_is_done_signals_do_not_end_the_process(monkeypatch):
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    monkeypatch.setattr(sys, "argv", ["onnx-sipp", "--version"])
    try:
        main()
        for number, _ in before:
            assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    main(["--version"])  # a call from Python leaves them as they are
    assert [(number, signal.getsignal(number)) for number, _ in before] == before
