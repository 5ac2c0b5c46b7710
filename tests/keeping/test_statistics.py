"""Statistics in a file: what is read is what was written, and nothing else is taken for it."""

import io
import json
import zipfile

import numpy as np
import onnx
import pytest
from small_models import make_model, mlp, other_model, weights

from onnx_sipp import SippError, UsageError, calibrate, prune, sweep

DATA = weights(40, 4, seed=5)
REFIT = {"sparsity": 0.5, "threads": 1}


@pytest.fixture
def file(tmp_path):
    """Statistics for the default method."""
    calibrate(mlp(), DATA).save(tmp_path / "stats.npz")
    return tmp_path / "stats.npz"


def bytes_of(result):
    return result.model.SerializeToString()


def without_time(report):
    told = report.to_dict()
    del told["seconds"], told["options"]["statistics"]
    return told


@pytest.mark.parametrize(
    "options",
    [
        {"method": "mixed"},
        {"method": "sipp-det"},
        {"method": "sipp-hybrid"},
        {"method": "wanda"},
        {"method": "magnitude", "compensate": "sequential"},
        {"method": "mixed", "pattern": "2:4"},
    ],
)
def test_the_model_and_the_report_are_those_without_a_file(tmp_path, options):
    plain = prune(mlp(), DATA, **{**REFIT, **options})
    said = {name: value for name, value in options.items() if name in ("method", "pattern")}
    calibrate(mlp(), DATA, **said).save(tmp_path / "s.npz")
    stages = Stages()
    again = prune(
        mlp(), DATA, statistics=tmp_path / "s.npz", progress=stages, **{**REFIT, **options}
    )
    assert bytes_of(again) == bytes_of(plain)
    assert without_time(again.report) == without_time(plain.report)
    assert "calibrating" not in stages.seen


class Stages:
    def __init__(self):
        self.seen = []

    def stage(self, name):
        self.seen.append(name)

    def advance(self, amount, total):
        pass


def test_large_weights_are_read_in_blocks(tmp_path):
    proto = make_model(
        [("MatMul", "x w", "y")], {"w": weights(1024, 300)}, inputs={"x": ["n", 1024]}
    )
    data = weights(10, 1024, seed=1)
    options = {"method": "sipp-det", "sparsity": 0.5}
    calibrate(proto, data, method="sipp-det").save(tmp_path / "s.npz")  # in one block
    results = [
        prune(proto, data, memory_limit=0, **options, **more)
        for more in ({}, {"statistics": tmp_path / "s.npz"})
    ]
    assert bytes_of(results[0]) == bytes_of(results[1])


def test_the_same_statistics_are_the_same_bytes(file, tmp_path):
    calibrate(mlp(), DATA).save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == file.read_bytes()


def test_a_shared_weight(tmp_path):
    proto = make_model(
        [("MatMul", "x w", "a"), ("Relu", "a", "b"), ("MatMul", "b w", "y")], {"w": weights(4, 4)}
    )
    calibrate(proto, DATA, method="sipp-hybrid").save(tmp_path / "s.npz")
    options = {"method": "sipp-hybrid", "sparsity": 0.5}
    first = prune(proto, DATA, **options)
    again = prune(proto, DATA, statistics=tmp_path / "s.npz", **options)
    assert bytes_of(first) == bytes_of(again)
    assert [layer.epsilon_worst for layer in first.report.layers] == [
        layer.epsilon_worst for layer in again.report.layers
    ]


def test_no_samples_are_needed_to_choose_weights(tmp_path):
    calibrate(mlp(), DATA, method="sipp-hybrid").save(tmp_path / "s.npz")
    options = {"method": "sipp-hybrid", "sparsity": 0.5, "statistics": tmp_path / "s.npz"}
    alone = prune(mlp(), **options)
    assert bytes_of(alone) == bytes_of(prune(mlp(), DATA, **options))
    calibration = alone.report.calibration
    assert calibration.samples == calibration.samples_certified == 32
    assert "s.npz: array in memory" in calibration.source
    assert any("tells little of your data" in told for told in alone.report.warnings)
    assert not any("NO CALIBRATION DATA" in told for told in alone.report.warnings)


def test_a_refit_needs_the_samples(file):
    with pytest.raises(UsageError, match="other samples: array in memory .*, not "):
        prune(mlp(), statistics=file, **REFIT)


@pytest.mark.parametrize(
    ("message", "model", "data", "options"),
    [
        ("are of another model", other_model(), DATA, {}),
        ("other samples", mlp(), DATA[::-1], {}),
        ("other samples", mlp(), DATA, {"num_samples": 20}),
        ("lack what method sipp-det needs", mlp(), DATA, {"method": "sipp-det"}),
        ("lack what method wanda needs", mlp(), DATA, {"method": "wanda"}),
    ],
)
def test_statistics_of_something_else_are_refused(file, message, model, data, options):
    with pytest.raises(UsageError, match=message):
        prune(model, data, statistics=file, **{**REFIT, **options})


def test_other_layers_are_refused_and_fewer_are_not(tmp_path):
    calibrate(mlp(), DATA, exclude_nodes=["second"]).save(tmp_path / "s.npz")
    with pytest.raises(UsageError, match="lack the layer 'second'"):
        prune(mlp(), DATA, statistics=tmp_path / "s.npz", **REFIT)
    calibrate(mlp(), DATA).save(tmp_path / "s.npz")
    options = {"exclude_nodes": ["second"], **REFIT}
    again = prune(mlp(), DATA, statistics=tmp_path / "s.npz", **options)
    assert bytes_of(again) == bytes_of(prune(mlp(), DATA, **options))


def test_the_sensitivities_of_some_samples_do_not_serve_all(tmp_path):
    data = weights(400, 4, seed=5)
    calibrate(mlp(), data).save(tmp_path / "s.npz")
    with pytest.raises(UsageError, match="are of 256 of 320 samples, but method sipp-rand"):
        prune(mlp(), data, statistics=tmp_path / "s.npz", sparsity=0.5, method="sipp-rand")


def test_another_mask_input_is_refused(tmp_path):
    proto = make_model(
        [("MatMul", "x w", "a"), ("Add", "a m", "y")],
        {"w": weights(4, 4)},
        inputs={"x": ["n", 4], "m": ["n", 1]},
    )
    data = {"x": DATA, "m": np.ones((40, 1), np.float32)}
    calibrate(proto, data, mask_input="m").save(tmp_path / "s.npz")
    with pytest.raises(UsageError, match="with the mask input 'm', but this run has none"):
        prune(proto, data, statistics=tmp_path / "s.npz", **REFIT)


def test_external_data_counts(tmp_path):
    path = tmp_path / "in.onnx"
    onnx.save(mlp(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    calibrate(path, DATA).save(tmp_path / "s.npz")
    prune(path, DATA, statistics=tmp_path / "s.npz", **REFIT)
    data = bytearray((tmp_path / "w.bin").read_bytes())
    data[0] ^= 1
    (tmp_path / "w.bin").write_bytes(data)
    with pytest.raises(UsageError, match="another model, in.onnx"):
        prune(path, DATA, statistics=tmp_path / "s.npz", **REFIT)


def test_a_sweep_reuses_them(file):
    stages = Stages()
    one, other = (
        sweep(mlp(), DATA, sparsities=[0.5], threads=1, **more).to_dict()["points"]
        for more in ({}, {"statistics": file, "progress": stages})
    )
    assert one == other
    assert "calibrating" not in stages.seen


def test_goals_are_refused():
    with pytest.raises(UsageError, match="no goal; leave sparsity out"):
        calibrate(mlp(), DATA, sparsity=0.5)


# --- damaged and hostile files ------------------------------------------------------------------


def rewritten(file, changes):
    """The same file with other members."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members.update(changes)
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)


def npy(value, **options):
    stream = io.BytesIO()
    np.save(stream, value, **options)
    return stream.getvalue()


def header(value):
    return npy(np.frombuffer(json.dumps(value).encode(), np.uint8))


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("lacks the array '0.max'", {"0.max.npy": None}),
        ("lacks the array '0.max'", {"0.max.npy": npy(np.zeros((8, 5), np.float32))}),
        ("lacks the array '0.max'", {"0.max.npy": npy(np.zeros((8, 4)))}),
        ("impossible values", {"0.max.npy": npy(np.full((8, 4), np.nan, np.float32))}),
        ("impossible values", {"0.max.npy": npy(np.full((8, 4), 1.5, np.float32))}),
        ("pickled", {"0.max.npy": npy(np.full((8, 4), {}), allow_pickle=True)}),
        ("truncated or damaged", {"0.max.npy": npy(np.zeros((8, 4), np.float32))[:-4]}),
        ("holds no onnx-sipp statistics", {"header.npy": None}),
        ("holds no onnx-sipp statistics", {"header.npy": header([])}),
        ("holds no onnx-sipp statistics", {"header.npy": header({"form": "other"})}),
        ("holds no onnx-sipp statistics", {"header.npy": npy(np.zeros(3, np.uint8))}),
        ("holds no onnx-sipp statistics", {"header.npy": npy(np.zeros(3))}),
        (
            "holds no onnx-sipp statistics",
            {"header.npy": npy(np.frombuffer(b"[" * 100_000, np.uint8))},
        ),
        ("something odd", {"header.npy": header({"form": "onnx-sipp statistics 1"})}),
    ],
)
def test_a_damaged_file_is_refused(file, message, changes):
    rewritten(file, changes)
    with pytest.raises(SippError, match=message):
        prune(mlp(), DATA, statistics=file, **REFIT)


def test_odd_numbers_are_refused(file):
    with zipfile.ZipFile(file) as archive:
        told = json.loads(np.load(io.BytesIO(archive.read("header.npy"))).tobytes())
    for patches in ([], [-1], ["many"], [1, 1], None):
        told["weights"][0]["patches"] = patches
        rewritten(file, {"header.npy": header(told)})
        with pytest.raises(SippError, match="something odd"):
            prune(mlp(), DATA, statistics=file, **REFIT)


def test_bytes_that_are_no_archive(tmp_path):
    (tmp_path / "s.npz").write_bytes(b"no archive")
    with pytest.raises(SippError, match="cannot be read"):
        prune(mlp(), DATA, statistics=tmp_path / "s.npz", **REFIT)
    with pytest.raises(UsageError, match="there are no statistics"):
        prune(mlp(), DATA, statistics=tmp_path / "none.npz", **REFIT)


def test_a_flipped_bit_is_noticed(file):
    data = bytearray(file.read_bytes())
    place = data.index(b"0.max.npy") + 200  # in its elements
    data[place] ^= 1
    file.write_bytes(data)
    with pytest.raises(SippError):
        prune(mlp(), DATA, statistics=file, **REFIT)
