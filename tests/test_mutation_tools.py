"""The tools of mutation testing: which changes there are, who is drawn, what is known."""

import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))

import mutation  # noqa: E402
from mutating.changes import changes  # noqa: E402
from mutating.page import interval  # noqa: E402


def told(source):
    return [change.told.replace("`", "") for change in changes(source.encode())]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a = b < c", ["b < c → b <= c", "b < c → b >= c"]),
        ("a = b + é * 2", ["b + é * 2 → b - é * 2", "é * 2 → é / 2", "2 → 1", "2 → 3"]),
        ("a = b and not c", ["b and (not c) → b or not c", "not c → c"]),
        ("if a: b()", ["a → not a", "b() removed"]),
        ("a = x.copy()", ["x.copy() → x"]),
        ("a = np.minimum(b, c)", ["np.minimum(b, c) → np.maximum(b, c)"]),
        ("a[i] += b", ["a[i] += b → a[i] -= b", "a[i] += b removed"]),
        ("a = True", ["True → False"]),
        ("a = 1e12", ["1000000000000.0 → 10000000000000.0", "1000000000000.0 → 100000000000.0"]),
        ("def f(a=1): return a", ["1 → 0", "1 → 2"]),
    ],
)
def test_small_changes(source, expected):
    assert sorted(told(source)) == sorted(expected)


@pytest.mark.parametrize(
    "source",
    [
        '"""Of 2 + 2."""',
        "assert 1 < 2",
        "__all__ = [1]",
        "Small = Array[1]",
        "a: Array[1] = b",
        'a = f"{1 + 1}"',
        "@compiled(fast=True)\ndef f(): return a",
        "def f(*, threads=1): return a",
        "a = min(b, 4 * threads)",
        "a = zip(b, c, strict=True)",
        "a = b.reshape(-1)",
        "raise_ = f\nif TYPE_CHECKING: import numpy",
    ],
)
def test_what_is_left_out(source):
    assert told(source) == []


def test_changes_are_made_where_they_are_told():
    source = "é = 1\nif é < 2 and f(\n    é):\n    raise ValueError(f'not {é + 1}')\n".encode()
    made = {change.told: change.made(source).decode() for change in changes(source)}
    assert made["`é < 2` → `é >= 2`"].splitlines()[1] == "if (é >= 2) and f("
    assert made["`raise ValueError(f'not {é + 1}')` removed"].endswith("    é):\n    pass\n")
    for code in made.values():
        compile(code, "mutant", "exec")


def test_lines_that_coverage_sees():
    function = b"def f():\n    if (a\n            < 2):\n        b()\n"
    source = b"a = 1\n" + function + b"@compiled()\ndef g():\n    c()\n"
    found = {change.told: change for change in changes(source)}
    assert not found["`1` → `2`"].called
    assert found["`a < 2` → `a <= 2`"].lines == range(3, 5)
    assert found["`a < 2` → `a <= 2`"].called
    assert not found["`c()` removed"].called


def test_one_of_each_stretch_is_drawn():
    everything = [("file", number) for number in range(103)]
    drawn = [number for _, number in mutation.drawn(everything, 10, 3)]
    assert drawn == sorted(drawn)
    assert all(103 * i // 10 <= n < 103 * (i + 1) // 10 for i, n in enumerate(drawn))
    assert drawn != [number for _, number in mutation.drawn(everything, 10, 4)]
    assert mutation.drawn(everything, 1000, 0) == everything


def test_interval_of_a_share():
    """Wilson's, from his formula's usual example: 81 of 263."""
    low, high = interval(81, 263)
    assert low == pytest.approx(0.2553, abs=5e-5)
    assert high == pytest.approx(0.3662, abs=5e-5)


def test_what_is_known_is_about_lines_that_are_there():
    notes = tomllib.loads((ROOT / "tools/mutating/survivors.toml").read_text())["survivor"]
    for note in notes:
        source = (ROOT / note["file"]).read_bytes()
        lines = source.decode().splitlines()
        places = [i for i, line in enumerate(lines, 1) if line.strip() == note["line"]]
        assert places, note
        changed = [c.told.replace("`", "") for c in changes(source) if c.line in places]
        assert note.get("change", changed[0]) in changed, note
