"""External data is read from plain files inside the model's folder, and from nowhere else."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from small_models import make_model, save_external, tensor, weights

from onnx_sipp.errors import SippError
from onnx_sipp.graph import external
from onnx_sipp.graph.external import external_reference
from onnx_sipp.graph.model import Model

WEIGHT = weights(4, 6)


def model_at(folder, location, *, offset=None, length=None, dims=(4, 6)):
    """A model whose weight is said to lie at a location; nothing is written there."""
    proto = tensor("w", WEIGHT)
    proto.ClearField("raw_data")
    proto.ClearField("dims")
    proto.dims.extend(dims)
    proto.data_location = TensorProto.EXTERNAL
    entries = {"location": location, "offset": offset, "length": length}
    for key, value in entries.items():
        if value is not None:
            proto.external_data.add(key=key, value=str(value))
    path = folder / "model.onnx"
    onnx.save(make_model([("MatMul", "x w", "y")], {"w": proto}), path)
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model").mkdir()
    return tmp_path / "model"


@pytest.fixture
def outside(tmp_path):
    """A readable file with the right bytes that the model has no right to."""
    path = tmp_path / "secret.bin"
    path.write_bytes(WEIGHT.tobytes())
    return path


@pytest.mark.parametrize(
    ("prefix", "offset", "length"),
    [(0, None, None), (0, 0, WEIGHT.nbytes), (10, 10, None), (4096, 4096, WEIGHT.nbytes)],
)
def test_read(folder, prefix, offset, length):
    (folder / "w.bin").write_bytes(b"\1" * prefix + WEIGHT.tobytes())
    model = Model.load(model_at(folder, "w.bin", offset=offset, length=length))
    np.testing.assert_array_equal(model.read("w"), WEIGHT)
    assert not model.read("w").flags.writeable


def test_read_from_a_folder_inside(folder):
    (folder / "data").mkdir()
    (folder / "data" / "w.bin").write_bytes(WEIGHT.tobytes())
    for location in ("data/w.bin", "./data/w.bin"):
        model = Model.load(model_at(folder, location))
        np.testing.assert_array_equal(model.read("w"), WEIGHT)


def test_read_what_onnx_writes(folder):
    path = save_external(make_model([("MatMul", "x w", "y")], {"w": WEIGHT}), folder / "m.onnx")
    np.testing.assert_array_equal(Model.load(path).read("w"), WEIGHT)


def test_read_from_the_current_folder(folder, monkeypatch):
    (folder / "w.bin").write_bytes(WEIGHT.tobytes())
    monkeypatch.chdir(folder)
    model = Model.load(model_at(Path(), "w.bin"))
    np.testing.assert_array_equal(model.read("w"), WEIGHT)


def test_the_folder_is_that_of_the_path_given(tmp_path, folder):
    """As in onnx: beside a link to the model its data is not looked for elsewhere."""
    (folder / "w.bin").write_bytes(WEIGHT.tobytes())
    model_at(folder, "w.bin")
    (tmp_path / "link.onnx").symlink_to(folder / "model.onnx")
    with pytest.raises(SippError, match="'w.bin' is missing in"):
        Model.load(tmp_path / "link.onnx")
    (tmp_path / "folder").symlink_to(folder)
    np.testing.assert_array_equal(Model.load(tmp_path / "folder" / "model.onnx").read("w"), WEIGHT)


def refused(path, match):
    """Neither loading nor inspecting reads the file."""
    with pytest.raises(SippError, match=match) as caught:
        Model.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("location", ["../secret.bin", "a/../../secret.bin", "..\\secret.bin"])
def test_climbing_out_is_refused(folder, outside, location):
    refused(model_at(folder, location), "leaves the model's folder")


def test_absolute_paths_are_refused(folder, outside):
    refused(model_at(folder, str(outside)), "is an absolute path")
    refused(model_at(folder, "C:\\secret.bin"), "is an absolute path")


def test_symbolic_links_are_refused(folder, outside):
    (folder / "w.bin").symlink_to(outside)
    refused(model_at(folder, "w.bin"), "'w.bin' is a symbolic link")
    (folder / "here.bin").write_bytes(WEIGHT.tobytes())
    (folder / "w.bin").unlink()
    (folder / "w.bin").symlink_to("here.bin")  # even inside the folder: it may be changed later
    refused(model_at(folder, "w.bin"), "'w.bin' is a symbolic link")


def test_links_among_the_folders_are_refused(folder, outside):
    (folder / "data").symlink_to(outside.parent)
    refused(model_at(folder, "data/secret.bin"), "'data' is a symbolic link")


def test_hard_links_are_refused(folder, outside):
    os.link(outside, folder / "w.bin")
    refused(model_at(folder, "w.bin"), "has several hard links")


def test_a_link_put_there_after_the_check_is_refused(folder, outside):
    (folder / "w.bin").write_bytes(WEIGHT.tobytes())
    model = Model.load(model_at(folder, "w.bin"))
    (folder / "w.bin").unlink()
    (folder / "w.bin").symlink_to(outside)
    with pytest.raises(SippError, match="is a symbolic link"):
        model.read("w")


def test_a_folder_that_became_a_link_is_refused_when_it_is_opened(folder, outside, monkeypatch):
    """Even between the check and the opening."""
    (folder / "data").mkdir()
    (folder / "data" / "secret.bin").write_bytes(WEIGHT.tobytes())
    model = Model.load(model_at(folder, "data/secret.bin"))
    np.testing.assert_array_equal(model.read("w"), WEIGHT)
    checked = external.checked_file

    def swapped(location, place):
        path = checked(location, place)
        (folder / "data").rename(folder / "moved")
        (folder / "data").symlink_to(outside.parent)
        return path

    monkeypatch.setattr(external, "checked_file", swapped)
    with pytest.raises(SippError, match="cannot open external data"):
        model.read("w")


def test_a_length_beyond_the_file(folder):
    (folder / "w.bin").write_bytes(WEIGHT.tobytes())
    refused(model_at(folder, "w.bin", length=WEIGHT.nbytes + 1), "97 are said to be there")


def test_a_name_that_is_too_long(folder):
    refused(model_at(folder, "w" * 5000), "File name too long")


def test_folders_and_devices_are_refused(folder):
    (folder / "w.bin").mkdir()
    refused(model_at(folder, "w.bin"), "is no regular file")
    os.mkfifo(folder / "pipe")
    refused(model_at(folder, "pipe"), "is no regular file")


def test_a_missing_file(folder):
    refused(model_at(folder, "w.bin"), "'w.bin' is missing in .*copy it there")


@pytest.mark.parametrize(
    ("offset", "length"), [(None, None), (8, None), (0, WEIGHT.nbytes), (10**15, None)]
)
def test_a_file_too_short(folder, offset, length):
    (folder / "w.bin").write_bytes(WEIGHT.tobytes()[:-4])
    refused(model_at(folder, "w.bin", offset=offset, length=length), "is too short: 96 bytes")


def test_a_length_too_short(folder):
    (folder / "w.bin").write_bytes(WEIGHT.tobytes())
    refused(model_at(folder, "w.bin", length=50), "is too short")


@pytest.mark.parametrize("bad", ["-4", "four", "1.5", "0x10"])
@pytest.mark.parametrize("key", ["offset", "length"])
def test_bad_numbers(folder, key, bad):
    (folder / "w.bin").write_bytes(WEIGHT.tobytes())
    refused(model_at(folder, "w.bin", **{key: bad}), "offset or length is (no number|negative)")


def test_no_location(folder):
    refused(model_at(folder, None), "tensor 'w' is external but names no file")


def test_negative_dims(folder):
    (folder / "w.bin").write_bytes(WEIGHT.tobytes())
    refused(model_at(folder, "w.bin", dims=(-4, -6)), "negative dims")


def test_a_tensor_without_elements(folder):
    (folder / "w.bin").write_bytes(b"")
    model = Model.load(model_at(folder, "w.bin", dims=(0, 6)))
    assert model.read("w").shape == (0, 6)


def test_packed_integers(folder):
    """Two INT4 in a byte: 24 elements need 12 bytes."""
    (folder / "w.bin").write_bytes(bytes(12))
    path = model_at(folder, "w.bin")
    proto = onnx.load(path, load_external_data=False)
    proto.graph.initializer[0].data_type = TensorProto.INT4
    path.write_bytes(proto.SerializeToString())
    assert external_reference(Model.load(path).stored["w"]).location == "w.bin"


def test_a_model_in_memory_has_no_folder(folder):
    proto = onnx.load(model_at(folder, "w.bin"), load_external_data=False)
    for source in (proto, proto.SerializeToString()):
        with pytest.raises(SippError, match="a model in memory has no folder.*path"):
            Model.load(source)


def test_tensors_in_subgraphs_are_checked_too(folder, outside):
    inner = onnx.load(model_at(folder, "../secret.bin"), load_external_data=False).graph
    del inner.input[:]
    nodes = [onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)]
    model = make_model(nodes, {"c": np.array(True)})
    (folder / "if.onnx").write_bytes(model.SerializeToString())
    refused(folder / "if.onnx", "leaves the model's folder")
