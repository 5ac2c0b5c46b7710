"""What a run prints."""

import io

import numpy as np
import pytest
from rich.console import Console
from small_models import make_model, mlp, weights

from onnx_sipp import inspect, prune
from onnx_sipp.report.summary import print_inspection, print_report

DATA = np.random.default_rng(0).standard_normal((30, 4), np.float32)


def printed(function, value):
    console = Console(file=io.StringIO(), width=160)
    function(value, console)
    return console.file.getvalue()


def test_report(tmp_path):
    text = printed(print_report, prune(mlp(), DATA, sparsity=0.5, method="sipp-det").report)
    for expected in (
        *("first", "second", "Gemm", "4×8", "28 of 56 (50.00%)", "sipp-det"),
        *("relative error", "cosine", "top-1 agreement", "measured error"),
        "What the zeros buy: stock runtimes",
        "What is guaranteed",
        "Warning: 24 calibration samples, where the theory asks for",
    ):
        assert expected in text, text


def test_report_with_a_certificate_as_the_goal():
    options = {"epsilon": 0.25, "delta": 0.1, "method": "sipp-hybrid"}
    text = printed(print_report, prune(mlp(), DATA, **options).report)
    assert "as far as every ε stays at most 0.25" in text


def test_file_sizes(models, tmp_path):
    result = prune(models / "lenet5.onnx", models / "digits-calib.npz", num_samples=20)
    report = result.save(tmp_path / "out.onnx")
    text = printed(print_report, report)
    assert f"{(models / 'lenet5.onnx').stat().st_size:,} bytes" in text
    assert f"{(tmp_path / 'out.onnx').stat().st_size:,} bytes" in text


def test_made_up_inputs_cannot_be_missed():
    text = printed(print_report, prune(mlp(), sparsity=0.5).report)
    assert "NO CALIBRATION DATA" in text


@pytest.fixture
def markup():
    """Names that rich would take for its own markup."""
    nodes = [
        ("MatMul", "x [bold]w", "[red]h", {"name": "[blue]layer[/]"}),
        ("Mul", "[red]h scale", "y[0]", {"name": "[/not closed"}),
    ]
    constants = {"[bold]w": weights(4, 3), "scale": weights(3)}
    return make_model(nodes, constants, outputs=["y[0]"])


def test_names_are_no_markup(markup):
    text = printed(print_report, prune(markup, DATA, sparsity=0.5).report)
    for name in ("[blue]layer[/]", "y[0]", "[/not closed"):
        assert name in text
    text = printed(print_inspection, inspect(markup))
    for name in ("[blue]layer[/]", "[bold]w", "[/not closed"):
        assert name in text


def test_skipped_nodes_have_a_reason(markup):
    text = printed(print_report, prune(markup, DATA, sparsity=0.5).report)
    assert "an elementwise factor is no weight matrix" in text


def test_nodes_skipped_for_one_reason_are_told_together(models):
    path = models / "resnet_bn.onnx"
    options = {"method": "magnitude", "num_samples": 5, "sparsity": 0.5}
    result = prune(path, models / "digits-calib.npz", exclude_nodes=["fc"], **options)
    kinds = {skip.op_type for skip in result.report.skipped}
    text = printed(print_report, result.report)
    told = text.split("Left alone")[1].split("└")[0]
    assert told.count("BatchNormalization") == 1
    assert "and 7 more" in told
    assert all(kind in told for kind in kinds)
    assert printed(print_inspection, inspect(path)).count("BatchNormalization") == 10


def test_shared_weights_are_pointed_out():
    nodes = [("MatMul", "x v", "h", {"name": "one"}), ("MatMul", "h v", "y", {"name": "two"})]
    model = make_model(nodes, {"v": weights(4, 4)})
    text = printed(print_report, prune(model, DATA, sparsity=0.5).report)
    assert "two (weight of one)" in text


def test_what_dead_paths_took_is_told(models):
    options = {"sparsity": 0.97, "num_samples": 100, "allocation": "error", "threads": 2}
    result = prune(models / "lenet300.onnx", models / "digits-calib.npz", **options)
    text = printed(print_report, result.report)
    assert f"{result.report.freed:,} weights that did nothing made room for others (" in text
    assert "dead paths" not in printed(print_report, prune(mlp(), DATA, dead_paths=False).report)


def test_results_print_themselves(markup):
    result = prune(markup, DATA, sparsity=0.5)
    console = Console(file=io.StringIO(), width=160)
    console.print(result)
    assert console.file.getvalue() == printed(print_report, result.report)
    assert repr(result) == "<PruneResult of a model: 50.00% zeros>"
