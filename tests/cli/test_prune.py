"""`onnx-sipp IN OUT`."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from small_models import cell, make_model, mlp, save_external, weights, without_payloads

from onnx_sipp.graph.model import Model


def zeros(path):
    model = Model.load(path)
    return sum(int((model.read(name) == 0).sum()) for name in ("w1", "w2"))


def test_it_prunes(run, folder):
    before = (folder / "in.onnx").read_bytes()
    result = run("in.onnx", "out.onnx", "--calib", "data.npz", "--sparsity", 0.7)
    assert result.code == 0, result
    assert result.err == ""  # no progress bar: this is no terminal
    assert zeros("out.onnx") == round(0.7 * 56)
    assert (folder / "in.onnx").read_bytes() == before
    for expected in ("first", "second", "39 of 56 (69.64%)", "data.npz", "top-1", "What the zeros"):
        assert expected in result.out
    onnx.checker.check_model("out.onnx")


def test_the_command_has_a_name_too(run):
    assert run("prune", "in.onnx", "out.onnx", "--calib", "data.npz").code == 0
    assert zeros("out.onnx") == 28


def test_options_may_come_first(run):
    assert run("--sparsity", 0.25, "--calib", "data.npz", "in.onnx", "out.onnx").code == 0
    assert zeros("out.onnx") == 14


def test_the_same_bytes_again(run, folder):
    for name in ("a.onnx", "b.onnx"):
        assert run("in.onnx", name, "--calib", "data.npz", "--method", "sipp-hybrid").code == 0
    assert (folder / "a.onnx").read_bytes() == (folder / "b.onnx").read_bytes()


def test_only_the_pruned_tensors_differ(run, folder):
    assert run("in.onnx", "out.onnx", "--calib", "data.npz", "--method", "magnitude").code == 0
    before, after = onnx.load("in.onnx"), onnx.load("out.onnx")
    assert before != after
    for proto in (before, after):
        without_payloads(proto, {0, 2})  # w1 and w2
    assert before == after


@pytest.mark.parametrize("flag", ["--new-biases", "--no-new-biases"])
def test_nodes_may_stay_as_they_are(run, folder, flag):
    proto = make_model([("Gemm", "x w", "y")], {"w": weights(4, 8)})
    onnx.save(proto, "in.onnx")
    np.savez("data.npz", x=2 + weights(60, 4, seed=3))
    assert run("in.onnx", "out.onnx", "--calib", "data.npz", flag, "--sparsity", 0.7).code == 0
    assert (onnx.load("out.onnx").graph.node == proto.graph.node) == (flag == "--no-new-biases")


def test_json(run, folder):
    result = run("in.onnx", "out.onnx", "--calib", "data.npz", "--json", "report.json")
    assert result.code == 0
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report["schema_version"] == 1
    assert (report["zeros"], report["prunable"], report["sparsity"]) == (28, 56, 0.5)
    assert [layer["name"] for layer in report["layers"]] == ["first", "second"]
    assert report["bytes_after"] == (folder / "out.onnx").stat().st_size
    assert report["calibration"]["synthetic"] is False
    assert sorted(path.name for path in folder.iterdir()) == [
        "data.npz", "in.onnx", "out.onnx", "report.json",
    ]  # fmt: skip


def test_external_data(run, folder):
    save_external(mlp(), folder / "big.onnx")
    assert run("big.onnx", "out.onnx", "--calib", "data.npz").code == 0
    assert zeros("out.onnx") == 28
    assert (folder / "out.onnx.data").exists()


def test_made_up_inputs_are_announced(run, folder):
    result = run("in.onnx", "out.onnx", "--num-samples", 4, "--json", "r.json")
    assert result.code == 0
    assert "Warning: NO CALIBRATION DATA" in result.out
    assert json.loads((folder / "r.json").read_text())["calibration"]["synthetic"] is True


def test_shapes_of_made_up_inputs(run, folder):
    onnx.save(make_model([("MatMul", "x w", "y")], {"w": weights(4, 2)}, {"x": ["a", "b", 4]}), "m")
    result = run("m", "out.onnx", "--num-samples", 2, "--input-shapes", "x:3,5,4")
    assert result.code == 0, result
    assert "sizes that the model leaves open" not in result.out


def test_data_loader_script(run, folder):
    (folder / "loader.py").write_text(
        "import numpy as np\n"
        "def load_data():\n"
        "    for i in range(5):\n"
        "        yield {'x': np.full((1, 4), i, np.float32)}\n"
        "def few():\n"
        "    return list(load_data())[:3]\n"
    )
    result = run("in.onnx", "out.onnx", "--data-loader-script", "loader.py")
    assert (result.code, zeros("out.onnx")) == (0, 28)
    assert "loader.py:load_data (5 feeds)" in result.out
    result = run("in.onnx", "out.onnx", "--data-loader-script", "loader.py:few")
    assert "loader.py:few (3 feeds)" in result.out


def test_load_inputs_is_another_name(run):
    assert "data.npz" in run("in.onnx", "out.onnx", "--load-inputs", "data.npz").out


@pytest.mark.parametrize(
    "options",
    [
        ["--exclude-nodes", "first"],
        ["--nodes_to_exclude", "f*"],
        ["--exclude-nodes", "first", "--exclude-op-types", "Conv"],
    ],
)
def test_exclusions(run, options):
    result = run("in.onnx", "out.onnx", "--calib", "data.npz", *options)
    assert result.code == 0
    assert "excluded by the user" in result.out
    assert Model.load("out.onnx").read("w1").all()
    assert zeros("out.onnx") == 12


def test_states(run, folder):
    onnx.save(cell(), folder / "cell.onnx")
    np.savez(folder / "data.npz", x=weights(20, 4))
    for options in [(), ("--state", "h0=hn", "--state-reset", 5)]:
        result = run("cell.onnx", "out.onnx", "--calib", "data.npz", "--json", "r.json", *options)
        assert result.code == 0, result.err
        source = json.loads((folder / "r.json").read_text())["calibration"]["source"]
        assert "h0 fed back from hn" in source
        assert ("4 sequences" in source) == bool(options)
    result = run("cell.onnx", "other.onnx", "--calib", "data.npz", "--state", "")
    assert (result.code, "no array for input 'h0'" in result.err) == (1, True)
    result = run("cell.onnx", "other.onnx", "--calib", "data.npz", "--state", "h0")
    assert (result.code, "not of the form input=output" in result.err) == (2, True)


def test_custom_ops(run, folder):
    result = run("in.onnx", "out.onnx", "--calib", "data.npz", "--custom-ops", "ops.so")
    assert (result.code, "no such library of operators: ops.so" in result.err) == (2, True)
    (folder / "ops.so").write_bytes(b"no library")
    result = run("in.onnx", "out.onnx", "--calib", "data.npz", "--custom-ops", "ops.so")
    assert (result.code, "cannot load the operators of 'ops.so'" in result.err) == (2, True)
    assert not (folder / "out.onnx").exists()


def test_epsilon(run):
    for epsilon in ("0", "100"):
        options = ["--calib", "data.npz", "--epsilon", epsilon, "--delta", "1e-3"]
        assert run("in.onnx", f"{epsilon}.onnx", *options).code == 0
    assert zeros("0.onnx") == 0
    assert zeros("100.onnx") > 0


def test_an_old_output_is_replaced(run, folder):
    (folder / "out.onnx").write_bytes(b"old")
    assert run("in.onnx", "out.onnx", "--calib", "data.npz").code == 0
    assert zeros("out.onnx") == 28


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "message", "arguments"),
    [
        (2, "there is no file 'nope.onnx'", ["nope.onnx", "out.onnx"]),
        (2, "is a folder; give the .onnx file inside it", [".", "out.onnx"]),
        (2, "'in.onnx' would overwrite the input", ["in.onnx", "in.onnx"]),
        (2, "would overwrite the input", ["in.onnx", "../{name}/in.onnx"]),
        (2, "the folder 'missing' does not exist; create it", ["in.onnx", "missing/out.onnx"]),
        (2, "is a folder; name a file in it", ["in.onnx", "."]),
        (2, "is no regular file", ["in.onnx", "/dev/null"]),
        (2, "sparsity must be at least 0 and below 1, not 1.0", [..., "--sparsity", "1"]),
        (2, "not -0.1", [..., "--sparsity", "-0.1"]),
        (2, "not 70.0", [..., "--sparsity", "70"]),
        (2, "not nan", [..., "--sparsity", "nan"]),
        (2, "either a sparsity or an epsilon", [..., "--sparsity", "0.5", "--epsilon", "1"]),
        (2, "epsilon must be a number from 0 on", [..., "--epsilon", "-1"]),
        (2, "epsilon must be a number from 0 on", [..., "--epsilon", "nan"]),
        (2, "epsilon must be a number from 0 on", [..., "--epsilon", "inf"]),
        (2, "delta must lie between 0 and 1", [..., "--delta", "0"]),
        (2, "a floor goes with", [..., "--method", "sipp-det", "--floor", "0.2"]),
        (2, "leave rounds out", [..., "--pattern", "channels", "--rounds", "3"]),
        (2, "leave state_reset out", [..., "--state-reset", "3"]),
        (2, "num_samples must be at least 1", [..., "--num-samples", "0"]),
        (2, "batch_size must be at least 1", [..., "--batch-size", "0"]),
        (2, "threads must be at least 1", [..., "--threads", "-1"]),
        (2, "seed must be 0 or more", [..., "--seed", "-1"]),
        (2, "works with the allocations", [..., "--method", "sipp-rand", "--allocation", "lamp"]),
        (2, "there is no such file or folder", [..., "--calib", "nope.npz"]),
        (2, "there is no such script", [..., "--data-loader-script", "nope.py"]),
        (2, "not both", [..., "--calib", "data.npz", "--data-loader-script", "x.py"]),
        (2, "the model has no such input", [..., "--input-shapes", "z:1,4"]),
        (2, "but the model declares [n, 4]", [..., "--input-shapes", "x:1,5"]),
        (2, "did you mean 'first'?", [..., "--exclude-nodes", "frist"]),
        (2, "did you mean 'Gemm'?", [..., "--exclude-op-types", "gemm"]),
        (2, "has no execution provider 'NoSuch'", [..., "--providers", "NoSuch"]),
        (2, "the folder 'missing' does not exist", [..., "--json", "missing/report.json"]),
        (2, "is a folder; name a file in it", [..., "--json", "."]),
        (2, "'in.onnx' would overwrite an input", [..., "--json", "in.onnx"]),
        (2, "overwrite an input", [..., "--calib", "data.npz", "--json", "data.npz"]),
        (2, "'out.onnx' is to be written twice", [..., "--json", "./out.onnx"]),
        (2, "overwrite an input", ["in.onnx", "data.npz", "--calib", "data.npz"]),
        (1, "the model has no weight that can be pruned", [..., "--exclude-op-types", "Gemm"]),
    ],
)
def test_wrong_usage(refused, folder, code, message, arguments):
    if arguments[0] is ...:
        arguments = ["in.onnx", "out.onnx", *arguments[1:]]
    arguments = [argument.format(name=folder.name) for argument in arguments]
    refused(code, message, *arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "'bad.onnx' is empty"),
        (b"hello, this is text", "'bad.onnx' is no ONNX model, or is truncated"),
        (mlp().SerializeToString()[:-20], "'bad.onnx' is no ONNX model, or is truncated"),
        (b"\x08\x08", "holds no graph"),
    ],
)
def test_what_is_no_model(refused, folder, content, message):
    (folder / "bad.onnx").write_bytes(content)
    refused(1, message, "bad.onnx", "out.onnx", "--calib", "data.npz")


def test_a_model_that_the_runtime_refuses(refused, folder):
    model = make_model([("MatMul", "x w", "h"), ("NoSuchOp", "h", "y")], {"w": weights(4, 2)})
    onnx.save(model, folder / "bad.onnx")
    result = refused(1, "refuses the model", "bad.onnx", "out.onnx", "--calib", "data.npz")
    assert "NoSuchOp" in result.err


def test_a_model_without_weights(refused, folder):
    onnx.save(make_model([("Relu", "x", "y")], {}), folder / "bad.onnx")
    refused(1, "the model has no weight that can be pruned", "bad.onnx", "out.onnx")


def test_a_model_whose_weights_are_computed(refused, folder):
    nodes = [("Neg", "w", "t"), ("MatMul", "x t", "y", {"name": "m"})]
    onnx.save(make_model(nodes, {"w": weights(4, 2)}), folder / "bad.onnx")
    result = refused(1, "no weight that can be pruned", "bad.onnx", "out.onnx")
    assert "m (MatMul): its weight 't' is computed from constants (Neg)" in result.err


def test_external_data_outside_the_folder(refused, folder):
    save_external(mlp(), folder / "big.onnx")
    (folder / "sub").mkdir()
    (folder / "big.onnx").rename(folder / "sub" / "big.onnx")
    refused(1, "'weights.bin' is missing", "sub/big.onnx", "out.onnx")
    (folder / "sub" / "weights.bin").symlink_to(folder / "weights.bin")
    refused(1, "'weights.bin' is a symbolic link", "sub/big.onnx", "out.onnx")


GOOD = np.ones((6, 4), np.float32)
NAN = np.where(np.arange(24).reshape(6, 4) == 13, np.nan, 1).astype(np.float32)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"z": GOOD}, ["no array for input 'x'", "Did you mean 'z'"]),
        ({"x": GOOD[:, :3]}, ["must have shape", "it has [6, 3]"]),
        ({"x": GOOD.astype(np.int64)}, ["must be float32, but it is int64"]),
        ({"x": NAN}, ["sample 3", "'x' holds nan", "Every value must be finite"]),
        ({"x": GOOD[:0]}, ["sample"]),
        ({"x": GOOD.astype(object)}, ["data.npz"]),
    ],
)
def test_bad_data(refused, folder, arrays, expected):
    np.savez(folder / "data.npz", **arrays)
    result = refused(1, expected[0], "in.onnx", "out.onnx", "--calib", "data.npz")
    for words in expected:
        assert words in result.err


def test_damaged_data(refused, folder):
    data = (folder / "data.npz").read_bytes()
    (folder / "data.npz").write_bytes(data[: len(data) // 2])
    refused(1, "data.npz", "in.onnx", "out.onnx", "--calib", "data.npz")


def test_a_script_that_fails(refused, folder):
    (folder / "loader.py").write_text("def load_data():\n    raise RuntimeError('no disk')\n")
    result = refused(
        1, "the script failed", "in.onnx", "out.onnx", "--data-loader-script", "loader.py"
    )
    assert "line 2" in result.err
    assert "RuntimeError: no disk" in result.err


@pytest.mark.parametrize("external", [False, True])
def test_a_full_disk(refused, folder, monkeypatch, external):
    save_external(mlp(), folder / "big.onnx")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    source = "big.onnx" if external else "in.onnx"
    refused(1, "No space left on device", source, "out.onnx", "--calib", "data.npz")


def test_a_folder_without_permission(refused, folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    refused(2, "is not writable", "in.onnx", "out.onnx", "--calib", "data.npz")


def interrupted_import():
    """What an extension module makes of Ctrl-C while it is loaded."""
    error = ImportError("initialization failed")
    error.__cause__ = KeyboardInterrupt()
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyboardInterrupt, "interrupted; no file was left half-written"),
        (interrupted_import(), "interrupted; no file was left half-written"),
        (ImportError("no libgomp"), "a library cannot be loaded: no libgomp"),
        (MemoryError, "out of memory; try fewer samples at a time"),
        (OSError(5, "Input/output error", "disk"), "Input/output error: disk"),
    ],
)
@pytest.mark.parametrize("place", ["graph.model.Model.replace", "calibration.runner.Runner.run"])
def test_the_run_ends_early(refused, monkeypatch, error, message, place):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(f"onnx_sipp.{place}", fail)
    refused(1, message, "in.onnx", "out.onnx", "--calib", "data.npz")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_for_real(command, folder, number):
    (folder / "loader.py").write_text(
        "import time\n"
        "def load_data():\n"
        "    open('started', 'w').close()\n"
        "    time.sleep(60)\n"
        "    yield {}\n"
    )
    arguments = [command, "in.onnx", "out.onnx", "--data-loader-script", "loader.py"]
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        # A runner in the background hands down that interrupts are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    until = time.monotonic() + 60
    while not (folder / "started").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    assert err.strip().startswith("onnx-sipp: interrupted; no file was left half-written.")
    assert "run it again" in err
    assert not (folder / "out.onnx").exists()


def test_a_terminal_without_greek_letters(command, folder):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    arguments = [command, "in.onnx", "out.onnx", "--calib", "data.npz"]
    result = subprocess.run(
        arguments, capture_output=True, env=environment, cwd=folder, check=False
    )
    assert result.returncode == 0, result.stderr
    assert b"What is guaranteed: ?" in result.stdout
    assert sys.getdefaultencoding() == "utf-8"


def test_masks_go_out_and_come_back_in(run, refused, folder):
    first = run("in.onnx", "out.onnx", "--calib", "data.npz", "--sparsity", "0.6",
                "--masks", "kept.npz")  # fmt: skip
    assert first.code == 0, first
    again = run("in.onnx", "again.onnx", "--calib", "data.npz", "--apply-masks", "kept.npz",
                "--json", "report.json", "--write-config", "effective.yaml")  # fmt: skip
    assert again.code == 0, again
    assert "kept.npz" in again.out
    a, b = (Model.load(name) for name in ("out.onnx", "again.onnx"))
    for name in ("w1", "w2"):
        np.testing.assert_array_equal(a.read(name) == 0, b.read(name) == 0)
    for source in ("report.json", "effective.yaml"):
        result = run("in.onnx", "third.onnx", "--calib", "data.npz", "--config", source)
        assert result.code == 0, result
        assert (folder / "third.onnx").read_bytes() == (folder / "again.onnx").read_bytes()
    overrule = ["--config", "effective.yaml", "--sparsity", "0.25"]
    assert run("in.onnx", "third.onnx", *overrule).code == 0
    assert zeros("third.onnx") == 14


def test_masks_are_a_goal_and_an_input(run, refused, folder):
    np.savez(folder / "kept.npz", first=np.ones((4, 8), bool))
    asked = ["in.onnx", "out.onnx", "--calib", "data.npz", "--apply-masks", "kept.npz"]
    refused(2, "leave sparsity out", *asked, "--sparsity", "0.5")
    refused(2, "kept.npz", *asked, "--masks", "kept.npz")
    refused(2, "no such file of masks", *asked[:-1], "kep.npz")
