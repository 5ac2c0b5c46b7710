"""Progress bars, only on a terminal."""

import io
import sys

from onnx_sipp.cli.progress import Bars


def drawn(monkeypatch, *, terminal):
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with Bars() as bars:
        bars.advance(1, 2)  # before any stage: nothing to move
        bars.stage("calibrating")
        bars.advance(3, 10)
        bars.advance(7, 10)
        bars.stage("measuring")
        bars.advance(1, 1)
    return stream.getvalue()


def test_on_a_terminal(monkeypatch):
    output = drawn(monkeypatch, terminal=True)
    assert "calibrating" in output
    assert "10/10" in output


def test_few_bars_are_seen_at_a_time(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    bars = Bars()
    for number in range(20):
        bars.stage(f"step {number}")
        if number != 17:  # one that says nothing of how far it is
            bars.advance(1, 1)
    seen = [task.description for task in bars._bars.tasks if task.visible]
    assert seen == ["step 15", "step 16", "step 18", "step 19"]


def test_elsewhere(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert drawn(monkeypatch, terminal=False) == ""


def test_results_go_to_standard_output_and_are_wide_enough(run, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = run("in.onnx", "out.onnx", "--calib", "data.npz").out.splitlines()
    assert max(map(len, lines)) > 80
    monkeypatch.setenv("COLUMNS", "60")
    lines = run("in.onnx", "out.onnx", "--calib", "data.npz").out.splitlines()
    assert max(map(len, lines)) <= 60
