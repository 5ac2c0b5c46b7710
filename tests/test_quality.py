"""The checks of CI, so that `pytest` alone says whether a change is ready."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHECKS = {
    "ruff check": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy"],
    "import-linter": ["lint-imports"],
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_check(check):
    tool = shutil.which(check[0], path=str(Path(sys.executable).parent)) or shutil.which(check[0])
    assert tool, f"{check[0]} is not installed: pip install -e '.[test]'"
    result = subprocess.run(
        [tool, *check[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
