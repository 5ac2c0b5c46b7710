"""The command line in this process, in a folder with a model and its data."""

import hashlib
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from small_models import mlp, weights

from onnx_sipp.cli.main import main


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder: ``in.onnx`` and ``data.npz``."""
    onnx.save(mlp(), tmp_path / "in.onnx")
    np.savez(tmp_path / "data.npz", x=weights(20, 4, seed=3))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


@pytest.fixture
def run(folder, capsys):
    """Run a command; returns the exit code, and what was printed."""

    def call(*arguments):
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code or 0
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def refused(run, folder):
    """Check that a command ends with an exit code and a message, and touches nothing."""

    def call(code, message, *arguments):
        before = contents(folder)
        result = run(*arguments)
        assert result.code == code, result
        assert message in result.err
        assert result.err.count("onnx-sipp:") == 1
        assert "Traceback" not in result.err
        assert result.out == ""
        assert contents(folder) == before
        return result

    return call


def contents(folder):
    """What lies in a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def command():
    """The installed command."""
    found = shutil.which("onnx-sipp", path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("onnx-sipp is not installed beside this Python")
    return found
