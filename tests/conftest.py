"""What all tests share."""

import os
from pathlib import Path

import pytest

# Output is as wide as in a file: processes that run tests are told the width of the terminal.
os.environ.pop("COLUMNS", None)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared():
    """The folder beside the repository with data that is not part of the project."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared, which is not part of the project")
    return SHARED


@pytest.fixture(scope="session")
def models():
    """The folder of the small trained models."""
    return Path(__file__).resolve().parents[1] / "models"


def pytest_generate_tests(metafunc):
    """Give tests with an argument ``zoo_file`` every model of ../shared/zoo."""
    if "zoo_file" in metafunc.fixturenames:
        zoo = SHARED / "zoo"
        files = [
            pytest.param(file, id=str(file.relative_to(zoo)).removesuffix(".onnx"))
            for file in sorted(zoo.rglob("*.onnx"))
        ]
        skip = pytest.mark.skip("needs ../shared, which is not part of the project")
        metafunc.parametrize("zoo_file", files or [pytest.param(None, marks=skip, id="absent")])
