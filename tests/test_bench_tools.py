"""The tool that measures speed: what is compared is equal, fits are right, failures are told."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxsim", reason="needs the extra bench")
pytest.importorskip("polygraphy", reason="needs the extra bench")

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tools"))

import bench_all  # noqa: E402
import bench_wide  # noqa: E402
from bench import formula, rivals, scaling  # noqa: E402
from bench.limits import reached  # noqa: E402
from bench.timing import Effort, alternating  # noqa: E402

ONCE = Effort(1, 0)


@pytest.mark.parametrize("reduction", ["max", "mean"])
def test_formula_and_product_give_the_same(reduction):
    layer = formula.Layer.made(5, 7, 3, 4)
    found = [way(layer, reduction) for way in (formula.by_patch, formula.by_neuron, formula.ours)]
    assert found[0].max() > 0.5
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-4, atol=1e-6)


def test_the_formula_takes_neurons_that_receive_nothing():
    layer = formula.Layer(np.zeros((2, 3), np.float32), np.ones((1, 3, 2), np.float32))
    for way in (formula.by_patch, formula.by_neuron, formula.ours):
        np.testing.assert_array_equal(way(layer, "max"), 0)


def test_works_take_turns_and_what_fails_is_told_once():
    calls = []

    def fails():
        calls.append("bad")
        raise ValueError("no | such\nthing")

    works = {"bad": fails, "good": lambda: calls.append("good") or len(calls)}
    found = alternating(works, Effort(3, 100))
    assert calls == ["bad", "good", "good", "good"]
    assert found["bad"].trouble == "ValueError: no / such thing"
    assert np.isnan(found["bad"].median)
    assert found["good"].result == 4
    assert len(found["good"].seconds) == 3
    assert len(alternating(works, Effort(3, 0))["good"].seconds) == 1


def test_a_power_is_found_and_carried_on():
    seconds = {size: 0.5 * size**1.5 for size in (2, 4, 8)}
    assert scaling.exponent(seconds) == pytest.approx(1.5)
    assert scaling.expected(seconds, 16) == pytest.approx(0.5 * 16**1.5)
    assert scaling.expected({2: 1.0}, 16) == 0


def test_a_tool_that_fails_says_so_in_its_cell(monkeypatch):
    def refuses(*_):
        raise RuntimeError("only quantised models")

    kept = [rivals.Rival("any", name, rivals.TOOLS["onnxsim magnitude"]) for name in ("a", "b")]
    monkeypatch.setattr(rivals, "RIVALS", [*kept, rivals.Rival("any", "c", refuses)])
    lines = rivals.compared([bench_all.wide_case(16)], ONCE).splitlines()
    assert len(lines) == 5
    assert "| any | a | 0." in lines[2]
    assert "| 50.0 % |" in lines[2]
    assert "| any | c | fails: RuntimeError: only quantised models | – |" in lines[4]


def test_polygraphy_leaves_its_input_alone():
    case = bench_all.wide_case(16)
    before = case.model.SerializeToString()
    pruned = rivals.polygraphy(case.model, case.calib, 0.5)
    assert case.model.SerializeToString() == before
    weight = np.frombuffer(pruned.graph.initializer[0].raw_data, np.float32).reshape(4, 4, 16)
    assert np.all((weight == 0).sum(axis=1) == 2)


def test_every_part_is_measured_against_its_limit(tmp_path):
    table = reached(32, 64, 100_000, 2, tmp_path, ONCE)
    rows = [line.strip("|").split(" | ") for line in table.splitlines()[2:]]
    assert "fails" not in table
    for cells in rows:
        assert float(cells[3].replace(",", "")) > 0
        assert cells[6].strip().endswith("%") == bool(cells[5].strip())
    assert sum(not cells[5].strip() for cells in rows) == 4
    assert not list(tmp_path.iterdir())


def test_the_page_holds_all_that_was_measured(tmp_path, capsys):
    out = tmp_path / "speed.md"
    sizes = "--models --wide 16 --layers 4x6x2x3 --samples 32 64 --widths 8 16 --depths 1 2"
    small = "--narrow 16 --part 32 --peak 64 --megabytes 0.1 --repeats 1"
    bench_all.main([*sizes.split(), *small.split(), "--out", str(out), "--folder", str(tmp_path)])
    text = out.read_text(encoding="utf-8")
    assert capsys.readouterr().out == text
    assert str(tmp_path) not in text
    assert "`python tools/bench_all.py --repeats 1 --models --wide 16 --layers 4x6x2x3 " in text
    assert "| Polygraphy | " in text
    assert "| MatMul 16×16 (made-up rows) | 50 % anywhere | onnxsim SparseGPT | " in text
    assert text.count(" | yes | 1 |") == 2
    assert text.count("| exponent, all | ") == 3
    assert "](speed.svg)" in text
    image = out.with_suffix(".svg").read_text(encoding="utf-8")
    assert image.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert image.count("seconds against ") == 3
    assert image.count("<circle") == 3 * 3 * 2


def test_wide_networks_beside_sparsegpt(tmp_path, capsys):
    out = tmp_path / "wide.md"
    bench_wide.main(["--sizes", "16x2x64", "--repeats", "1", "--out", str(out)])
    text = out.read_text(encoding="utf-8")
    assert capsys.readouterr().out == text
    (row,) = (line.strip("| ").split(" | ") for line in text.splitlines() if "16×16" in line)
    own, theirs, times = (float(cell.strip("* ")) for cell in row[3:6])
    assert times == pytest.approx(theirs / own, abs=0.06)
    assert 0 < float(row[6]) < float(row[7]) < 1
    assert "`python tools/bench_wide.py --sizes 16x2x64 --out docs/results-wide.md`" in text
