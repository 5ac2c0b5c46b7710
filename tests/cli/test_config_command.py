"""`--config` and `--write-config`."""

import json

import pytest
import yaml

CONFIG = """
calib: data.npz
sparsity: 0.25
seed: 3
rules:
  - nodes: second
    sparsity: 0.5
"""


def test_what_the_file_says_holds_unless_the_command_says_otherwise(run, folder):
    (folder / "sipp.yaml").write_text(CONFIG)
    assert run("in.onnx", "out.onnx", "--config", "sipp.yaml", "--json", "r.json").code == 0
    report = json.loads((folder / "r.json").read_text())
    assert (report["zeros"], report["options"]["seed"]) == (14, 3)
    assert report["layers"][1]["zeros"] == report["layers"][1]["parameters"] / 2
    result = run("in.onnx", "out.onnx", "--config", "sipp.yaml", "--sparsity", "0.5",
                 "--json", "r.json")  # fmt: skip
    assert result.code == 0, result
    report = json.loads((folder / "r.json").read_text())
    assert (report["zeros"], report["options"]["seed"]) == (28, 3)


def test_a_goal_on_the_command_line_takes_the_place_of_the_files(run, folder):
    (folder / "sipp.yaml").write_text("calib: data.npz\nsparsity: 0.25\n")
    result = run("in.onnx", "out.onnx", "--config", "sipp.yaml", "--max-error", "0.9")
    assert result.code == 0, result


@pytest.mark.parametrize("source", ["report.json", "effective.yaml"])
def test_a_run_can_be_repeated(run, folder, source):
    first = run(
        "in.onnx", "a.onnx", "--calib", "data.npz", "--sparsity", "0.6", "--seed", "5",
        "--exclude-nodes", "first", "--json", "report.json", "--write-config", "effective.yaml",
    )  # fmt: skip
    assert first.code == 0, first
    again = run("in.onnx", "b.onnx", "--config", source, "--calib", "data.npz")
    assert again.code == 0, again
    assert (folder / "a.onnx").read_bytes() == (folder / "b.onnx").read_bytes()


def test_what_is_written_is_what_holds(run, folder):
    (folder / "deep").mkdir()
    (folder / "sipp.yaml").write_text(CONFIG)
    result = run("in.onnx", "out.onnx", "--config", "sipp.yaml", "--rounds", "2",
                 "--write-config", "deep/effective.yaml")  # fmt: skip
    assert result.code == 0, result
    said = yaml.safe_load((folder / "deep" / "effective.yaml").read_text())
    assert said["calib"] == "../data.npz"
    assert (said["sparsity"], said["rounds"], said["seed"]) == (0.25, 2, 3)
    assert said["rules"] == [{"nodes": ["second"], "sparsity": 0.5}]
    assert run("in.onnx", "again.onnx", "--config", "deep/effective.yaml").code == 0
    assert (folder / "again.onnx").read_bytes() == (folder / "out.onnx").read_bytes()


def test_sweep_takes_it_too(run, folder):
    (folder / "sipp.yaml").write_text(CONFIG)
    result = run("sweep", "in.onnx", "--config", "sipp.yaml", "--sparsities", "0.3,0.5",
                 "--json", "-")  # fmt: skip
    assert result.code == 0, result
    assert json.loads(result.out)["options"]["seed"] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("calib: data.npz\nsparsity: 1.5\n", "line 2: sparsity must be at least 0 and below 1"),
        ("seed: 1\nepsilon: 0.5\nsparsity: 0.5\n", "line 3: give either a sparsity or an epsilon"),
        ("storage: packt\nseed: 1\n", "line 1: storage must be one of"),
        ("spasity: 0.5\n", "line 1: there is no option 'spasity'; did you mean 'sparsity'?"),
        ("calib: missing.npz\n", "missing.npz"),
    ],
)
def test_errors(refused, folder, text, message):
    (folder / "sipp.yaml").write_text(text)
    refused(2, message, "in.onnx", "out.onnx", "--config", "sipp.yaml")


def test_the_file_is_not_overwritten(refused, folder):
    (folder / "sipp.yaml").write_text(CONFIG)
    refused(2, "would overwrite an input", "in.onnx", "out.onnx", "--config", "sipp.yaml",
            "--write-config", "sipp.yaml")  # fmt: skip
