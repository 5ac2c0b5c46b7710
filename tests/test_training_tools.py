"""The tools that train: masks are held, all methods keep the same share, pages say what was run."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra bench")
pytest.importorskip("sklearn", reason="needs the extra bench")

TOOLS = Path(__file__).resolve().parents[1] / "tools"


@pytest.fixture(scope="module")
def isolation():
    """What the experiment is made of, with a task that takes a second."""
    torch.set_num_threads(1)
    sys.path.insert(0, str(TOOLS))
    try:
        from isolation import methods, page, plot, study, summary, tasks, training
    finally:
        sys.path.remove(str(TOOLS))
    task = replace(next(iter(tasks.DIGITS.values())), epochs=1)
    parts = {m.__name__.split(".")[1]: m for m in (methods, page, plot, study, summary, training)}
    return {**parts, "task": task, "images": tasks.digits_images()}


def test_every_method_keeps_the_same_share_of_the_whole(isolation):
    task, images = isolation["task"], isolation["images"]
    torch.manual_seed(0)
    network = task.network()
    total = sum(w.numel() for w in isolation["training"].weights_of(network).values())
    masks = {}
    for name, method in isolation["methods"].METHODS.items():
        asked = isolation["methods"].Question(network, task, images, 0.8, 0)
        masks[name] = method(asked)
        assert list(masks[name]) == ["fc1", "fc2", "fc3"]
        assert sum(int(mask.sum()) for mask in masks[name].values()) == total - round(0.8 * total)
    weight = network.fc1.weight.detach().abs()
    kept = masks["magnitude"]["fc1"]
    assert weight[kept].min() > weight[~kept].max()
    chosen = [mask["fc1"].numpy().tobytes() for mask in masks.values()]
    assert len(set(chosen)) == len(chosen)


def test_a_mask_is_held_in_training(isolation):
    task, images, training = (isolation[name] for name in ("task", "images", "training"))
    torch.manual_seed(0)
    network = task.network()
    masks = {name: torch.rand(w.shape) < 0.3 for name, w in training.weights_of(network).items()}
    before = training.accuracy(network, images)
    training.train(network, task, images, 0, masks)
    network.eval()(images.test[:1])
    for name, mask in masks.items():
        assert not network.get_submodule(name).weight[~mask].any()
        assert network.get_submodule(name).weight[mask].all()
    assert training.accuracy(network, images) > before + 0.2


def test_runs_are_kept_and_not_repeated(isolation, tmp_path, monkeypatch):
    study = isolation["study"]
    monkeypatch.setattr(study, "SPARSITIES", (0.5,))
    path = tmp_path / "runs.json"
    runs = study.Runs(path)
    runs.add(isolation["task"], isolation["images"], [0])
    assert len(json.loads(path.read_text())) == 1 + 4 * 2 + 1
    monkeypatch.setattr(study, "train", None)
    again = study.Runs(path)
    again.add(isolation["task"], isolation["images"], [0])
    assert [run.accuracy for run in again.all] == [run.accuracy for run in runs.all]


def test_the_page_says_what_was_run(isolation):
    run, sparsities = isolation["study"].Run, isolation["study"].SPARSITIES
    runs = []
    for seed in (0, 1):
        runs.append(run("A task", seed, "", "dense", 0.0, 0.9, {"a": 1.0, "b": 1.0}))
        for init, method in (("random", "SNIP"), ("trained", "SNIP"), ("", "random")):
            for sparsity in sparsities:
                kept = {"a": 0.0 if sparsity > 0.97 else 0.25, "b": 0.5}
                right = 0.8 + 0.1 * seed if init == "trained" else 0.5
                runs.append(run("A task", seed, init, method, sparsity, right, kept))
    text = isolation["page"].page(runs)
    assert "| SNIP | trained weights | " + " | ".join(["85.0 ± 7.1"] * 5) + " |" in text
    assert "| random | nothing | " + " | ".join(["0 of 2"] * 4) + " | 2 of 2 |" in text
    assert "| SNIP | random weights | 25.0 | 50.0 |" in text
    drawn = isolation["plot"].drawn(isolation["summary"].summaries(runs))
    assert drawn.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert drawn.count("<path") >= 3 + 3


def test_the_example_prunes_retrains_and_applies_its_masks(tmp_path):
    command = [sys.executable, str(TOOLS / "prune_and_retrain.py"), "--sparsities", "0.95"]
    result = subprocess.run(
        [*command, "--epochs", "2", "--out", str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "| 95.0% |" in result.stdout
    import onnx

    model = onnx.load(tmp_path / "retrained-0.95.onnx")
    masks = np.load(tmp_path / "kept-0.95.npz")
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    for name in masks.files:
        np.testing.assert_array_equal(weights[f"{name}.weight"] != 0, masks[name])
