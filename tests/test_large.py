"""Large models: what lies in files, and in blocks, is pruned as if it were in memory."""

import errno
import gc
import hashlib
import os

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from small_models import make_model, save_external, weights

from onnx_sipp import SippError, prune
from onnx_sipp.graph.model import Model
from onnx_sipp.memory import Plan
from onnx_sipp.pruning.methods import METHODS

RNG = np.random.default_rng(0)
DATA = (RNG.standard_normal((60, 5)) @ RNG.standard_normal((5, 12))).astype(np.float32)
NODES = [
    ("MatMul", "x a", "p", {"name": "first"}),
    ("Add", "p b", "s"),
    ("Relu", "s", "r"),
    ("Gemm", "r c d", "h", {"name": "second", "transB": 1}),
    ("Add", "h x", "k"),
    ("MatMul", "k e", "y", {"name": "third"}),
]
CONSTANTS = {
    "a": weights(12, 40),
    "b": weights(40),
    "c": weights(12, 40, seed=1),
    "d": weights(12),
    "e": weights(12, 6, seed=2),
}
TOTAL = 480 + 480 + 72
REFITS = [("mixed", "auto"), ("mixed", "lamp"), ("magnitude", "lamp")]


@pytest.fixture
def path(tmp_path):
    (tmp_path / "in").mkdir()
    proto = make_model(NODES, CONSTANTS, {"x": ["n", 12]})
    return save_external(proto, tmp_path / "in" / "m.onnx")


@pytest.fixture
def work(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def small_parts(monkeypatch):
    """Every constant is large, every model is, and nothing is kept in memory."""
    monkeypatch.setattr("onnx_sipp.calibration.runner.LARGE_BYTES", 0)
    monkeypatch.setattr("onnx_sipp.calibration.segments.SEGMENT_BYTES", 300)
    monkeypatch.setattr("onnx_sipp.graph.handing_over.MAPPED_BYTES", 100)
    monkeypatch.setattr("onnx_sipp.preparing.KEPT_BYTES", 0)


@pytest.fixture
def blocks(small_parts, monkeypatch):
    """And layers come in blocks of a few neurons."""
    monkeypatch.setattr(Plan, "within", classmethod(lambda cls, *_: cls(128, 1)))
    monkeypatch.setattr("onnx_sipp.weights.JURY_SIZE", 6)


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def run(path, x=DATA[:20]):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def zeros_in(path):
    model = Model.load(path)
    return sum(int(np.count_nonzero(model.read(name) == 0)) for name in "ace")


@pytest.mark.parametrize("limit", [0, 5000])
@pytest.mark.parametrize("method", ["mixed", "sipp-hybrid"])
def test_a_tiny_limit_changes_no_byte(path, work, tmp_path, limit, method):
    digest = []
    for name, options in {"plain": {}, "tiny": {"memory_limit": limit, "workdir": work}}.items():
        result = prune(path, DATA, sparsity=0.6, threads=1, method=method, **options)
        (tmp_path / name).mkdir()
        result.save(tmp_path / name / "o.onnx")
        digest.append(digests(tmp_path / name))
        del result
    assert digest[0] == digest[1]
    gc.collect()
    assert list(work.iterdir()) == []


def test_spilling_everything_gives_the_same(path, work, monkeypatch, small_parts):
    parted = prune(path, DATA, sparsity=0.6, threads=1, allocation="error", workdir=work)
    monkeypatch.undo()
    whole = prune(path, DATA, sparsity=0.6, threads=1, allocation="error")
    assert parted.report.zeros == whole.report.zeros == round(0.6 * TOTAL)
    for name, mask in whole.masks.items():
        np.testing.assert_array_equal(parted.masks[name], mask)
    before, after = whole.report.outputs[0], parted.report.outputs[0]
    assert after.relative_error == pytest.approx(before.relative_error, rel=1e-3)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        *((method, {}) for method in METHODS),
        ("mixed", {"allocation": "lamp"}),
        ("mixed", {"allocation": "error", "rounds": 2}),
        ("mixed", {"compensate": "layerwise"}),
        ("mixed", {"compensate": "none"}),
        ("magnitude", {"compensate": "sequential"}),
        ("sipp-det", {"compensate": "sequential", "rounds": 2}),
    ],
)
def test_every_method_in_blocks(path, work, tmp_path, blocks, method, options, sparsity):
    before = digests(path.parent)
    result = prune(path, DATA, sparsity=sparsity, method=method, workdir=work, **options)
    report = result.save(tmp_path / "o.onnx")
    assert report.zeros == zeros_in(tmp_path / "o.onnx") == round(sparsity * TOTAL)
    assert {name: int((~mask).sum()) for name, mask in result.masks.items()} == {
        row.name: row.zeros for row in report.layers
    }
    assert np.isfinite(run(tmp_path / "o.onnx")).all()
    assert digests(path.parent) == before
    result = None
    gc.collect()
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(("method", "allocation"), REFITS)
def test_a_refit_in_blocks_is_worth_it(path, work, blocks, method, allocation):
    options = {"method": method, "allocation": allocation, "workdir": work}
    report, none = (
        prune(path, DATA, sparsity=0.6, compensate=compensate, **options).report
        for compensate in ("sequential", "none")
    )
    errors = [found.outputs[0].relative_error for found in (report, none)]
    assert errors[0] < 0.7 * errors[1]
    assert report.layers[0].bias == "b"
    by_error = (method, allocation) == ("mixed", "auto")
    assert any("in blocks of neurons" in text for text in report.warnings) == by_error


def test_a_weight_alone_in_blocks(work, blocks):
    proto = make_model([("MatMul", "x a", "y")], {"a": weights(12, 40)}, {"x": ["n", 12]})
    report = prune(proto, DATA, sparsity=0.5, workdir=work).report
    assert report.zeros == 240
    assert report.layers[0].refit_error < report.layers[0].refit_error_before


def test_masks_are_read_when_they_are_looked_at(path, blocks):
    result = prune(path, DATA, sparsity=0.5, method="magnitude")
    assert list(result.masks) == ["first", "second", "third"]
    assert len(result.masks) == 3
    assert result.masks["second"].shape == (12, 40)
    with pytest.raises(KeyError):
        result.masks["fourth"]


def test_a_full_disk_while_pruning(path, work, monkeypatch, blocks):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("onnx_sipp.store.write_slab", full)
    before = digests(path.parent)
    with pytest.raises(SippError, match=r"cannot keep intermediate data in .*work: No space left"):
        prune(path, DATA, sparsity=0.5, workdir=work)
    gc.collect()
    assert [kept.name for kept in work.iterdir()] == ["onnx-sipp-run"]  # to go on from
    assert digests(path.parent) == before


def test_float16_in_blocks(tmp_path, work, blocks):
    constants = {name: value.astype(np.float16) for name, value in CONSTANTS.items()}
    proto = make_model(NODES, constants, {"x": ["n", 12]})
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    path = save_external(proto, tmp_path / "m.onnx")
    result = prune(path, DATA.astype(np.float16), sparsity=0.5, workdir=work)
    result.save(tmp_path / "o.onnx")
    assert zeros_in(tmp_path / "o.onnx") == TOTAL // 2
