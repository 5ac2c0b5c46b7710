"""Calibration data from a user's script."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from onnx_sipp.calibration.sources import InputSpec, load_script, open_source
from onnx_sipp.errors import SippError, UsageError

SPECS = (InputSpec("x", np.dtype(np.float32), ("N", 3)),)


@pytest.fixture
def script(tmp_path):
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode

    def write(text, name="calib.py"):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    yield write
    sys.dont_write_bytecode = before


GENERATOR = """
import numpy as np

def load_data():
    for index in range(5):
        yield {"x": np.full((1, 3), index, np.float32)}

def other():
    return list(load_data())[:2]

value = 3
"""


def test_the_default_function(script):
    source = open_source(load_script(script(GENERATOR)), SPECS)
    assert source.description == "calib.py:load_data (5 feeds)"
    assert [feed["x"][0, 0] for feed in source] == [0, 1, 2, 3, 4]
    assert len(list(source)) == 5


def test_a_named_function(script):
    source = open_source(load_script(script(GENERATOR) + ":other"), SPECS)
    assert source.description == "calib.py:other (2 feeds)"


def test_no_more_than_needed_is_taken(script):
    path = script(GENERATOR.replace("range(5)", "iter(int, 1)"))  # without end
    assert len(open_source(load_script(path), SPECS, num_samples=7)) == 7


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ("{'x': np.zeros((6, 3), np.float32)}", 6),
        ("np.zeros((4, 3), np.float32)", 4),
        ("Reader()", 2),
    ],
)
def test_other_data(script, value, count):
    path = script(f"""
import numpy as np

class Reader:
    left = 2
    def get_next(self):
        self.left -= 1
        return {{"x": np.zeros((1, 3), np.float32)}} if self.left >= 0 else None

def load_data():
    return {value}
""")
    assert len(open_source(load_script(path), SPECS)) == count


def test_neighbours_and_dataclasses(script):
    script("def helper():\n    return 7\n", "neighbour_of_calib.py")
    path = script("""
from __future__ import annotations
import dataclasses
import numpy as np

@dataclasses.dataclass
class Item:
    value: float

def load_data():
    from neighbour_of_calib import helper
    yield {"x": np.full((1, 3), Item(helper()).value, np.float32)}
""")
    before = list(sys.path)
    (feed,) = open_source(load_script(path), SPECS)
    assert feed["x"][0, 0] == 7
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import numpy\n\nraise ValueError('at import')", "line 3: .*ValueError: at import"),
        ("def load_data():\n    return {}['k']\n", "line 2: .*KeyError: 'k'"),
        ("def load_data():\n    yield 1 / 0\n", "line 2: .*ZeroDivisionError"),
        (
            "import json\n\ndef load_data():\n    yield json.loads('{')\n",
            "line 4: .*JSONDecodeError",
        ),
        ("x = = 1", "line 1: .*SyntaxError"),
        ("import sys\nsys.exit(3)", "line 2: .*SystemExit: 3"),
        ("import no_such_module_anywhere", "line 1: .*ModuleNotFoundError"),
        ("def load_data(path):\n    return []", "TypeError: .*argument"),
    ],
)
def test_errors_in_the_script(script, text, message):
    with pytest.raises(SippError, match=rf"calib\.py.*{message}"):
        open_source(load_script(script(text)), SPECS)


def test_wrong_feeds_name_the_script(script):
    path = script("def load_data():\n    yield 3\n")
    with pytest.raises(SippError, match=r"calib.py:load_data, feed 0: must be a dict"):
        open_source(load_script(path), SPECS)


@pytest.mark.parametrize("value", ["None", "3", "'text'"])
def test_nothing_to_iterate_over(script, value):
    path = script(f"def load_data():\n    return {value}\n")
    with pytest.raises(SippError, match=r"load_data\(\) must yield dicts"):
        load_script(path)


@pytest.mark.parametrize("function", ["missing", "value"])
def test_no_such_function(script, function):
    with pytest.raises(UsageError, match=f"has no function '{function}'"):
        load_script(f"{script(GENERATOR)}:{function}")


def test_no_such_file(tmp_path):
    with pytest.raises(UsageError, match="there is no such script"):
        load_script(str(tmp_path / "none.py"))


def test_no_python_file(script):
    with pytest.raises(UsageError, match=r"name must end in \.py"):
        load_script(script(GENERATOR, "calib.txt"))
