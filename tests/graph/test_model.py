"""Files are read, changed in their payloads only, and written whole or not at all."""

import errno
import hashlib
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from small_models import constant, make_model, mlp, save_external, tensor, weights

from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.graph.model import Model
from onnx_sipp.store import TensorStore

WEIGHT = weights(4, 6)


def digests(folder):
    """What lies in a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def run(path, x):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


# --- reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize("as_bytes", [True, False])
def test_what_is_given_stays_as_it_is(as_bytes):
    proto = mlp()
    before = proto.SerializeToString()
    model = Model.load(before if as_bytes else proto)
    model.replace("w1", np.zeros((4, 8), np.float32))
    assert proto.SerializeToString() == before
    assert model.path is None
    assert model.bytes_on_disk() is None


def test_a_copy_is_independent(folder):
    for model in (Model.load(mlp()), Model.load(save_external(mlp(), folder / "m.onnx"))):
        copy = model.copy()
        copy.replace("w1", np.zeros((4, 8), np.float32))
        assert model.read("w1").all()
        assert not copy.read("w1").any()
        assert not copy.copy().read("w1").any()


def test_constants_of_all_kinds():
    proto = make_model(
        [constant("c", WEIGHT), ("MatMul", "x c", "h"), ("MatMul", "h i", "y")],
        {"i": weights(6, 2), "j": weights(2)},
        inputs={"x": ["n", 4], "j": [2]},
    )
    model = Model.load(proto)
    assert list(model.stored) == ["i", "j", "c"]
    np.testing.assert_array_equal(model.read("c"), WEIGHT)
    assert model.route("c") == "Constant node"
    assert model.route("i") == "initializer"
    assert model.route("j") == "initializer, also a graph input"
    model.replace("c", -WEIGHT)
    (node,) = (n for n in model.proto.graph.node if n.op_type == "Constant")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(node.attribute[0].t), -WEIGHT)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"not a model at all", "is no ONNX model, or is truncated"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "is no ONNX model"),
        (mlp().SerializeToString()[:-30], "is no ONNX model, or is truncated"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "holds no graph"),
    ],
)
def test_what_is_no_model(tmp_path, content, match):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(SippError, match=match) as caught:
        Model.load(path)
    assert str(path) in str(caught.value)
    with pytest.raises(SippError, match=f"the given bytes.*{match}|{match}"):
        Model.load(content)


def test_no_such_file(tmp_path):
    with pytest.raises(UsageError, match="there is no file"):
        Model.load(tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="is a folder; give the .onnx file"):
        Model.load(tmp_path)
    with pytest.raises(SippError, match="cannot read .*File name too long"):
        Model.load(tmp_path / ("m" * 300))


def test_a_damaged_weight_is_told():
    proto = mlp()
    proto.graph.initializer[0].raw_data = b"1234"
    with pytest.raises(SippError, match="'w1' cannot be read"):
        Model.load(proto).read("w1")


# --- parts -------------------------------------------------------------------------------------


@pytest.fixture(params=["inside", "external", "in a store"])
def parted(request, folder, tmp_path):
    """A model whose constants are read and replaced in part."""
    if request.param == "inside":
        return Model.load(mlp())
    model = Model.load(save_external(mlp(), folder / "m.onnx"))
    return model.copy(TensorStore(0, tmp_path)) if request.param == "in a store" else model


def test_parts_of_constants(parted, out):
    dense, w1 = parted.copy(), weights(4, 8)
    np.testing.assert_array_equal(parted.read_slab("w1", 1, slice(2, 5)), w1[:, 2:5])
    parted.replace_slab("w1", 1, 2, -w1[:, 2:5])
    parted.replace_slab("w1", 0, 3, 2 * w1[3:])
    w1[:, 2:5] *= -1
    w1[3] = 2 * weights(4, 8)[3]
    np.testing.assert_array_equal(parted.read("w1"), w1)
    np.testing.assert_array_equal(parted.read_slab("w1", 0, slice(1, 2)), w1[1:2])
    np.testing.assert_array_equal(dense.read("w1"), weights(4, 8))
    parted.save(out / "o.onnx")
    saved = Model.load(out / "o.onnx")
    np.testing.assert_array_equal(saved.read("w1"), w1)
    np.testing.assert_array_equal(saved.read("w2"), dense.read("w2"))


def test_what_is_kept_elsewhere_is_taken_over(parted, tmp_path):
    site = parted.sites.named("w2")
    kept = TensorStore(0, tmp_path).keep(np.ones((8, 3), np.float32))
    parted.sites.share(site, kept)
    np.testing.assert_array_equal(parted.read("w2"), np.ones((8, 3)))


# --- for the runtime ---------------------------------------------------------------------------


def test_runnable_has_the_taps_and_the_new_values(folder):
    path = save_external(mlp(), folder / "m.onnx")
    model = Model.load(path)
    model.replace("w1", np.zeros((4, 8), np.float32))
    data, where, lent = model.runnable(["h", "y"])
    assert where == folder.resolve()
    assert not lent
    proto = onnx.load_from_string(data)
    assert [output.name for output in proto.graph.output] == ["y", "h"]
    w1, b1 = proto.graph.initializer[:2]
    assert not onnx.numpy_helper.to_array(w1).any()
    assert b1.data_location == TensorProto.EXTERNAL
    assert [output.name for output in model.proto.graph.output] == ["y"]


def test_inlined_needs_no_file(folder):
    path = save_external(mlp(), folder / "m.onnx")
    model = Model.load(path)
    model.replace("w2", np.ones((8, 3), np.float32))
    proto = model.inlined()
    for file in folder.iterdir():
        file.unlink()
    values = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    np.testing.assert_array_equal(values["w1"], weights(4, 8))
    np.testing.assert_array_equal(values["w2"], np.ones((8, 3)))
    onnx.checker.check_model(proto)


# --- writing -----------------------------------------------------------------------------------


def test_unchanged_is_byte_for_byte(folder, out):
    path = folder / "m.onnx"
    path.write_bytes(mlp().SerializeToString())
    Model.load(path).save(out / "m.onnx")
    assert (out / "m.onnx").read_bytes() == path.read_bytes()


def test_only_the_replaced_payload_changes(folder, out):
    path = folder / "m.onnx"
    proto = mlp()
    proto.metadata_props.add(key="author", value="somebody")
    proto.doc_string, proto.model_version, proto.domain = "doc", 7, "my.domain"
    proto.graph.doc_string = "graph doc"
    proto.graph.value_info.append(helper.make_tensor_value_info("h", 1, ["n", 8]))
    proto.graph.quantization_annotation.add(tensor_name="w1")
    proto.graph.node[0].metadata_props.add(key="k", value="v")
    proto.graph.initializer[0].doc_string = "weight doc"
    path.write_bytes(proto.SerializeToString())
    model = Model.load(path)
    model.replace("w1", np.zeros((4, 8), np.float32))
    model.save(out / "m.onnx")
    found = onnx.load(out / "m.onnx")
    assert found != proto
    for either in (found, proto):
        either.graph.initializer[0].ClearField("raw_data")
    assert found == proto


def test_external_data_is_saved_beside(folder, out):
    path = save_external(mlp(), folder / "m.onnx")
    before, x = digests(folder), weights(3, 4, seed=5)
    dense = run(path, x)
    model = Model.load(path)
    model.replace("w1", np.zeros((4, 8), np.float32))
    model.save(out / "small.onnx")

    assert digests(folder) == before
    assert sorted(digests(out)) == ["small.onnx", "small.onnx.data"]
    data = (folder / "weights.bin").read_bytes()
    changed = (out / "small.onnx.data").read_bytes()
    assert len(changed) == len(data)
    entries = {e.key: e.value for e in Model.load(path).stored["w1"].external_data}
    offset = int(entries["offset"])
    assert changed[offset : offset + 128] == bytes(128)
    assert changed[:offset] == data[:offset]
    assert changed[offset + 128 :] == data[offset + 128 :]

    saved = Model.load(out / "small.onnx")
    assert saved.bytes_on_disk() == sum(file.stat().st_size for file in out.iterdir())
    assert saved.route("w1") == "initializer, external data"
    np.testing.assert_array_equal(saved.read("w2"), model.read("w2"))
    result = run(out / "small.onnx", x)
    assert not np.array_equal(result, dense)
    expected = np.maximum(weights(8), 0) @ weights(8, 3, seed=1) + weights(3)
    np.testing.assert_allclose(result, np.tile(expected, (3, 1)), rtol=1e-5)

    found, original = (
        onnx.load(file, load_external_data=False) for file in (out / "small.onnx", path)
    )
    for proto in (found, original):
        for stored in proto.graph.initializer:
            (location,) = (entry for entry in stored.external_data if entry.key == "location")
            location.value = ""
    assert found == original


def test_several_data_files(folder, out):
    onnx.save(
        mlp(), folder / "m.onnx", save_as_external_data=True, all_tensors_to_one_file=False,
        size_threshold=0,
    )  # fmt: skip
    model = Model.load(folder / "m.onnx")
    model.replace("w2", np.zeros((8, 3), np.float32))
    model.save(out / "o.onnx")
    names = ["o.onnx", "o.onnx.1.data", "o.onnx.2.data", "o.onnx.3.data", "o.onnx.data"]
    assert sorted(digests(out)) == names
    saved = Model.load(out / "o.onnx")
    for name in ("w1", "b1", "b2"):
        np.testing.assert_array_equal(saved.read(name), model.read(name))
    assert not saved.read("w2").any()


def test_beside_the_input(folder):
    """Input and output in one folder: the names tell them apart."""
    path = save_external(mlp(), folder / "m.onnx", location="m.onnx.data")
    before = digests(folder)
    model = Model.load(path)
    model.replace("w1", np.zeros((4, 8), np.float32))
    model.save(folder / "o.onnx")
    after = digests(folder)
    assert sorted(after) == ["m.onnx", "m.onnx.data", "o.onnx", "o.onnx.data"]
    assert {name: after[name] for name in before} == before


def test_bytes_that_tensors_share_are_not_changed_for_both(folder, out):
    """Some exporters store equal tensors once; pruning one of them must leave the other."""
    values = weights(4, 4)
    path = save_external(
        make_model(
            [("MatMul", "x a", "h"), ("MatMul", "h b", "y")], {"a": values, "b": values}
        ),
        folder / "m.onnx",
    )  # fmt: skip
    proto = onnx.load(path, load_external_data=False)
    a, b = proto.graph.initializer
    del b.external_data[:]
    b.external_data.extend(a.external_data)
    path.write_bytes(proto.SerializeToString())
    model = Model.load(path)
    model.replace("a", np.zeros((4, 4), np.float32))
    model.save(out / "o.onnx")
    saved = Model.load(out / "o.onnx")
    assert not saved.read("a").any()
    np.testing.assert_array_equal(saved.read("b"), values)
    assert not run(out / "o.onnx", weights(2, 4)).any()


def test_a_checksum_of_the_old_data_goes(folder, out):
    path = save_external(mlp(), folder / "m.onnx")
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].external_data.add(key="checksum", value="0123")
    path.write_bytes(proto.SerializeToString())
    Model.load(path).save(out / "o.onnx")
    entries = Model.load(out / "o.onnx").stored["w1"].external_data
    assert [entry.key for entry in entries] == ["location", "offset", "length"]


@pytest.mark.parametrize("external", [False, True])
def test_an_old_output_is_replaced(folder, out, external):
    path = folder / "m.onnx"
    if external:
        save_external(mlp(), path)
    else:
        path.write_bytes(mlp().SerializeToString())
    for name in ("o.onnx", "o.onnx.data"):
        (out / name).write_bytes(b"old")
    Model.load(path).save(out / "o.onnx")
    assert Model.load(out / "o.onnx").read("w1").shape == (4, 8)
    assert ((out / "o.onnx.data").read_bytes() == b"old") != external


def test_a_linked_output_is_replaced_and_its_target_stays(folder, out):
    path = save_external(mlp(), folder / "m.onnx")
    (out / "precious").write_bytes(b"precious")
    (out / "o.onnx").symlink_to(out / "precious")
    (out / "o.onnx.data").symlink_to(out / "precious")
    Model.load(path).save(out / "o.onnx")
    assert (out / "precious").read_bytes() == b"precious"
    assert not (out / "o.onnx").is_symlink()
    assert not (out / "o.onnx.data").is_symlink()
    Model.load(out / "o.onnx")


def test_the_output_has_ordinary_permissions(folder, out):
    path = save_external(mlp(), folder / "m.onnx")
    (out / "plain").write_bytes(b"")
    Model.load(path).save(out / "o.onnx")
    modes = {file.stat().st_mode for file in out.iterdir()}
    assert len(modes) == 1


@pytest.fixture
def external(folder):
    save_external(mlp(), folder / "m.onnx", location="w.onnx.data")
    model = Model.load(folder / "m.onnx")
    model.replace("w1", np.zeros((4, 8), np.float32))
    return model


def test_the_input_is_never_overwritten(external, folder, out):
    before = digests(folder)
    os.link(folder / "m.onnx", out / "hard.onnx")
    (out / "soft.onnx").symlink_to(folder / "m.onnx")
    (out / "folder").symlink_to(folder)
    targets = [
        folder / "m.onnx",
        folder / ".." / folder.name / "m.onnx",
        folder / "w.onnx.data",  # its data
        folder / "w.onnx",  # whose data would be that of the input
        out / "hard.onnx",
        out / "soft.onnx",
        out / "folder" / "m.onnx",
    ]
    for target in targets:
        for refuse in (external.refuse_target, external.save):
            with pytest.raises(UsageError, match="would overwrite the input"):
                refuse(target)
    assert digests(folder) == before


def test_places_that_cannot_be_written(external, out, monkeypatch):
    (out / "folder").mkdir()
    (out / "o.onnx.data").mkdir()
    os.mkfifo(out / "pipe")
    for target, match in [
        (out / "folder", "is a folder; name a file in it"),
        (out / "o.onnx", "o.onnx.data' is a folder"),
        (out / "missing" / "o.onnx", "missing' does not exist; create it"),
        (out / "pipe", "is no regular file"),
        (out / ("o" * 300), "File name too long"),
        (out / ("o" * 253), "File name too long"),  # with .data
        (Path("/dev/null"), "is no regular file"),
    ]:
        with pytest.raises(UsageError, match=match):
            external.refuse_target(target)
        with pytest.raises(UsageError, match=match):
            external.save(target)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match="is not writable"):
        external.save(out / "w.onnx")
    assert sorted(digests(out)) == []


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize("failure", [full_disk, interrupt])
@pytest.mark.parametrize(
    "place", ["os.fsync", "shutil.copyfileobj", "tempfile.mkstemp", "pathlib.Path.replace"]
)
@pytest.mark.parametrize("old", [False, True])
def test_nothing_is_left_behind(external, folder, out, monkeypatch, failure, place, old):
    if old:
        (out / "o.onnx").write_bytes(b"old")
        (out / "o.onnx.data").write_bytes(b"old data")
    before = digests(folder), digests(out)
    with monkeypatch.context() as patch:
        patch.setattr(place, failure)
        expected = (SippError, KeyboardInterrupt)
        with pytest.raises(expected, match="No space left on device; nothing was written|^$"):
            external.save(out / "o.onnx")
    assert (digests(folder), digests(out)) == before


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_a_failure_between_renames_brings_the_old_files_back(external, out, monkeypatch, failing):
    rename, calls = Path.replace, []
    (out / "o.onnx").write_bytes(b"old")
    (out / "o.onnx.data").write_bytes(b"old data")
    before = digests(out)

    def one_fails(self, target):
        calls.append(target)
        return full_disk() if len(calls) == failing else rename(self, target)

    monkeypatch.setattr(Path, "replace", one_fails)
    with pytest.raises(SippError, match="nothing was written"):
        external.save(out / "o.onnx")
    assert len(calls) == failing
    assert digests(out) == before


def test_a_failure_between_two_renames_leaves_no_new_data(external, out, monkeypatch):
    rename, calls = Path.replace, []

    def second_fails(self, target):
        calls.append(target)
        return rename(self, target) if len(calls) == 1 else full_disk()

    monkeypatch.setattr(Path, "replace", second_fails)
    with pytest.raises(SippError, match="cannot write .*o.onnx'"):
        external.save(out / "o.onnx")
    assert [path.name for path in calls] == ["o.onnx.data", "o.onnx"]
    assert digests(out) == {}


def test_data_that_changes_under_way_is_not_followed_out(external, folder, out):
    """The data file becomes a link between loading and saving."""
    (folder / "w.onnx.data").rename(folder / "elsewhere")
    (folder / "w.onnx.data").symlink_to(folder / "elsewhere")
    with pytest.raises(SippError, match="symbolic link"):
        external.save(out / "o.onnx")
    with pytest.raises(SippError, match="symbolic link"):
        external.read_slab("w2", 0, slice(0, 1))
    assert digests(out) == {}


def test_data_that_is_cut_off_under_way(external, folder):
    os.truncate(folder / "w.onnx.data", 200)
    with pytest.raises(SippError, match="too short"):
        external.read_slab("w2", 0, slice(0, 1))


def test_external_data_in_every_float_type(folder, out):
    types = [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16]
    constants = {
        f"w{data_type}": tensor("", WEIGHT.astype(helper.tensor_dtype_to_np_dtype(data_type)))
        for data_type in types
    }
    nodes = [("Identity", name, f"y{name}") for name in constants]
    model = make_model(nodes, constants, outputs=[f"y{name}" for name in constants])
    loaded = Model.load(save_external(model, folder / "m.onnx"))
    for name in constants:
        values = loaded.read(name)
        np.testing.assert_allclose(values.astype(np.float64), WEIGHT, atol=0.05)
        loaded.replace(name, np.negative(values))
    loaded.save(out / "o.onnx")
    saved = Model.load(out / "o.onnx")
    for name in constants:
        np.testing.assert_array_equal(saved.read(name), loaded.read(name))
