"""`onnx-sipp calibrate IN STATS`, and what is done with the file."""

import pytest


@pytest.fixture
def calibrated(run, folder):
    result = run("calibrate", "in.onnx", "stats.npz", "--calib", "data.npz")
    assert result.code == 0, result
    assert "statistics of 2 layers with 56 weights, for --method mixed" in result.out
    assert "measured on 16 of 16 samples of data.npz (20 samples); 4 are held out" in result.out
    return folder


def test_prune_takes_the_file(run, calibrated):
    plain = ("in.onnx", "out.onnx", "--calib", "data.npz", "--threads", "1")
    assert run(*plain).code == 0
    expected = (calibrated / "out.onnx").read_bytes()
    result = run(*plain, "--statistics", "stats.npz", "-v")
    assert result.code == 0, result
    assert (calibrated / "out.onnx").read_bytes() == expected
    assert "calibrating" not in result.err


def test_a_configuration_names_the_file(run, calibrated):
    (calibrated / "sub").mkdir()
    (calibrated / "sub" / "c.yaml").write_text("statistics: ../stats.npz\nsparsity: 0.6\n")
    arguments = ("in.onnx", "out.onnx", "--calib", "data.npz", "--config", "sub/c.yaml")
    result = run(*arguments, "--write-config", "made.yaml", "-v")
    assert result.code == 0, result
    assert "calibrating" not in result.err
    assert "statistics: stats.npz" in (calibrated / "made.yaml").read_text()


def test_calibrate_takes_the_configuration_of_a_run(run, folder):
    (folder / "c.yaml").write_text("sparsity: 0.7\nrules:\n  - nodes: second\n    exclude: true\n")
    result = run("calibrate", "in.onnx", "s.npz", "--calib", "data.npz", "--config", "c.yaml")
    assert result.code == 0, result
    assert "statistics of 1 layers with 32 weights" in result.out


def test_samples_can_be_left_out(run, folder):
    assert run("calibrate", "in.onnx", "s.npz", "--calib", "data.npz", "--method", "wanda",
               "-q").out == ""  # fmt: skip
    result = run("in.onnx", "out.onnx", "--statistics", "s.npz", "--method", "wanda")
    assert result.code == 0, result
    assert "s.npz: data.npz (20 samples): 16, and" in result.out
    assert "tells little of your data" in " ".join(result.out.split())


@pytest.mark.parametrize(
    ("code", "message", "arguments"),
    [
        (2, "there are no statistics 'none.npz'", ["--statistics", "none.npz"]),
        (1, "cannot be read", ["--statistics", "in.onnx"]),
        (1, "holds no onnx-sipp statistics", ["--statistics", "data.npz"]),
    ],
)
def test_other_files_are_refused(refused, code, message, arguments):
    refused(code, message, "in.onnx", "out.onnx", "--calib", "data.npz", *arguments)


def test_the_file_is_no_output(refused, calibrated):
    refused(2, "would overwrite an input", "in.onnx", "stats.npz", "--statistics", "stats.npz")
    refused(2, "would overwrite an input", "calibrate", "in.onnx", "in.onnx")


def test_a_place_that_cannot_be_written(refused):
    refused(2, "does not exist", "calibrate", "in.onnx", "gone/s.npz", "--calib", "data.npz")


def test_a_scheduler_that_is_none(refused):
    refused(2, "scheduler must be an address", "in.onnx", "out.onnx", "--scheduler", "everywhere")
