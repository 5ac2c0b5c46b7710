"""Every script in tools/ finds what it imports."""

import runpy
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[1] / "tools"


@pytest.mark.parametrize("script", sorted(TOOLS.glob("*.py")), ids=lambda path: path.stem)
def test_it_loads(monkeypatch, script):
    monkeypatch.syspath_prepend(str(TOOLS))
    monkeypatch.setattr(sys, "argv", [str(script)])
    try:
        runpy.run_path(str(script), run_name="loaded")
    except ModuleNotFoundError as error:
        inside = {path.stem for path in TOOLS.iterdir()} | {"onnx_sipp"}
        if error.name is None or error.name.partition(".")[0] in inside:
            raise
        pytest.skip(f"needs {error.name}")
