"""An interrupted run goes on from its work folder, and ends as if it had not been interrupted."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from small_models import deep, make_model, mlp, other_model, weights

from onnx_sipp import SippError, UsageError, prune, sweep
from onnx_sipp.keeping.fingerprint import Fingerprint
from onnx_sipp.keeping.folder import RunFolder

DATA = weights(40, 4, seed=5)
OPTIONS = {"sparsity": 0.6, "threads": 1}


class InterruptionError(Exception):
    pass


class Stages:
    """Writes stages down, and interrupts the run at one."""

    def __init__(self, at=None):
        self.at, self.seen = at, []

    def stage(self, name):
        if len(self.seen) == self.at:
            raise InterruptionError
        self.seen.append(name)

    def advance(self, amount, total):
        pass


MODELS = {"mlp": mlp, "shared": deep}


def facts(result):
    told = result.report.to_dict()
    del told["seconds"], told["options"]
    return told


def long_ones(stages):
    """Those that are not repeated once they are finished."""
    return [stage for stage in stages if stage.startswith(("calibrating", "refitting"))]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rounds": 2},
        {"allocation": "error"},
        {"method": "wanda"},
        {"method": "wanda", "compensate": "layerwise"},
        {"sparsity": None, "max_error": 0.5, "allocation": "error"},
        {"pattern": "2:4", "sparsity": None},
    ],
    ids=str,
)
def test_a_run_goes_on_from_every_stage(tmp_path, name, options):
    options = {**OPTIONS, **options}
    stages = Stages()
    whole = prune(MODELS[name](), DATA, progress=stages, **options)
    for at in range(1, len(stages.seen), 1 + len(stages.seen) // 6):
        with pytest.raises(InterruptionError):
            prune(MODELS[name](), DATA, progress=Stages(at), workdir=tmp_path, **options)
        rest = Stages()
        result = prune(MODELS[name](), DATA, progress=rest, workdir=tmp_path, **options)
        assert result.model.SerializeToString() == whole.model.SerializeToString()
        assert facts(result) == facts(whole)
        if options.get("rounds", 1) == 1:  # a pass is kept once all its rounds are done
            assert long_ones(rest.seen) == long_ones(stages.seen[at:])
        assert not (tmp_path / "onnx-sipp-run").exists()


def test_a_fp16_model_with_external_data_goes_on(tmp_path):
    import onnx

    proto = make_model(
        [("Cast", "x", "c", {"to": 10}), ("MatMul", "c a", "h"), ("Relu", "h", "r"),
         ("MatMul", "r z", "o"), ("Cast", "o", "y", {"to": 1})],
        {"a": weights(4, 12).astype(np.float16), "z": weights(12, 3).astype(np.float16)},
    )  # fmt: skip
    path, work = tmp_path / "in.onnx", tmp_path / "work"
    work.mkdir()
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    stages = Stages()
    whole = prune(path, DATA, progress=stages, **OPTIONS)
    with pytest.raises(InterruptionError):
        prune(path, DATA, progress=Stages(len(stages.seen) - 1), workdir=work, **OPTIONS)
    result = prune(path, DATA, workdir=work, **OPTIONS)
    result.save(tmp_path / "out.onnx")
    assert result.model.SerializeToString() == whole.model.SerializeToString()


def left_behind(folder, **options):
    with pytest.raises(InterruptionError):
        prune(mlp(), DATA, progress=Stages(2), workdir=folder, **{**OPTIONS, **options})
    assert (folder / "onnx-sipp-run" / "statistics.npz").is_file()


@pytest.mark.parametrize(
    ("message", "model", "data", "options"),
    [
        ("has another model", other_model(), DATA, {}),
        ("has other samples", mlp(), DATA[:-1], {}),
        ("has sparsity 0.7 instead of 0.6", mlp(), DATA, {"sparsity": 0.7}),
        ("has exclude_nodes .*first.* instead of none", mlp(), DATA, {"exclude_nodes": ["first"]}),
        ("has rounds 2 instead of 1, seed 1 instead of 0", mlp(), DATA, {"rounds": 2, "seed": 1}),
    ],
)
def test_the_folder_of_another_run_is_refused(tmp_path, message, model, data, options):
    left_behind(tmp_path)
    with pytest.raises(UsageError, match=message):
        prune(model, data, workdir=tmp_path, **{**OPTIONS, **options})
    assert (tmp_path / "onnx-sipp-run" / "statistics.npz").is_file()
    prune(mlp(), DATA, workdir=tmp_path, **OPTIONS)  # it can still go on


def test_a_sweep_goes_on_and_another_one_is_refused(tmp_path):
    options = {"sparsities": [0.4, 0.6], "threads": 1}
    stages = Stages()
    whole = sweep(mlp(), DATA, progress=stages, **options).to_dict()
    with pytest.raises(InterruptionError):
        sweep(mlp(), DATA, progress=Stages(len(stages.seen) - 1), workdir=tmp_path, **options)
    with pytest.raises(UsageError, match=r"sparsities \[0.4, 0.5\] instead of \[0.4, 0.6\]"):
        sweep(mlp(), DATA, workdir=tmp_path, sparsities=[0.4, 0.5])
    again = sweep(mlp(), DATA, workdir=tmp_path, **options).to_dict()
    assert again["points"] == whole["points"]
    assert not (tmp_path / "onnx-sipp-run").exists()


def test_options_about_speed_do_not_matter(tmp_path):
    left_behind(tmp_path)
    rest = Stages()
    prune(mlp(), DATA, workdir=tmp_path, progress=rest, **{**OPTIONS, "threads": 2})
    assert "calibrating" not in rest.seen


@pytest.mark.parametrize("name", ["statistics.npz", "survey.npz", "pass-0.npz"])
def test_a_damaged_part_is_made_anew(tmp_path, name):
    whole = prune(mlp(), DATA, **OPTIONS)
    with pytest.raises(InterruptionError):
        prune(mlp(), DATA, progress=Stages(4), workdir=tmp_path, **OPTIONS)
    part = tmp_path / "onnx-sipp-run" / name
    part.write_bytes(part.read_bytes()[:100])
    result = prune(mlp(), DATA, workdir=tmp_path, **OPTIONS)
    assert result.model.SerializeToString() == whole.model.SerializeToString()


def test_a_damaged_folder_is_refused(tmp_path):
    left_behind(tmp_path)
    (tmp_path / "onnx-sipp-run" / "run.json").write_text(json.dumps(["something"]))
    with pytest.raises(SippError, match=r"run\.json: says something odd"):
        prune(mlp(), DATA, workdir=tmp_path, **OPTIONS)


def test_two_runs_in_one_folder(tmp_path):
    whole = prune(mlp(), DATA, **OPTIONS)
    found = []

    def work():
        found.append(prune(mlp(), DATA, workdir=tmp_path, **OPTIONS).model.SerializeToString())

    runs = [threading.Thread(target=work) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert found == [whole.model.SerializeToString()] * 2


@pytest.mark.parametrize("anew", [False, True])
def test_a_part_is_written_again_where_the_folder_went_meanwhile(tmp_path, anew):
    folder = RunFolder(tmp_path, Fingerprint("m", "d", {}, "v"))
    tried = []

    def write(path):
        tried.append(path)
        if len(tried) == 1:
            RunFolder(tmp_path, Fingerprint("m", "d", {}, "v")).forget()
            if anew:
                RunFolder(tmp_path, Fingerprint("m", "d", {}, "v")).keep("x", Path.touch)
            raise SippError("cannot write") from FileNotFoundError()
        path.write_text("part")

    folder.keep("part.npz", write)
    assert folder.part("part.npz", Path.read_text) == "part"

    def fail(path):
        raise SippError("the disk is full")

    with pytest.raises(SippError, match="the disk is full"):  # the folder is there
        folder.keep("other.npz", fail)
