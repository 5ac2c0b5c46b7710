"""ONNX test data sets as calibration data."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_sipp.calibration.sources import InputSpec, open_source
from onnx_sipp.errors import SippError

SPECS = (
    InputSpec("x", np.dtype(np.float32), ("N", 3)),
    InputSpec("ids", np.dtype(np.int64), ("N",)),
)


def write_set(folder, *arrays):
    folder.mkdir(parents=True)
    for index, array in enumerate(arrays):
        tensor = numpy_helper.from_array(np.asarray(array))
        (folder / f"input_{index}.pb").write_bytes(tensor.SerializeToString())
    return folder


@pytest.fixture
def folder(tmp_path):
    for index in (0, 1, 2, 10):
        write_set(
            tmp_path / "model" / f"test_data_set_{index}",
            np.full((index + 1, 3), index, np.float32),
            np.full(index + 1, index, np.int64),
        )
    return tmp_path / "model"


def test_sets_are_feeds_in_the_order_of_their_numbers(folder):
    source = open_source(folder, SPECS)
    assert source.description == "model (4 test data sets)"
    assert not source.synthetic
    assert [feed["x"][0, 0] for feed in source] == [0, 1, 2, 10]
    assert [feed["ids"].shape for feed in source] == [(1,), (2,), (3,), (11,)]
    assert [list(feed) for feed in source] == [["x", "ids"]] * 4


def test_one_set(folder):
    source = open_source(folder / "test_data_set_2", SPECS)
    assert len(source) == 1
    assert source.description == "test_data_set_2 (1 test data set)"


def test_the_first_ones(folder):
    source = open_source(folder, SPECS, num_samples=2)
    assert source.description == "model (first 2 of 4 test data sets)"
    assert len(list(source)) == len(source) == 2


def test_beside_the_model(folder):
    source = open_source(None, SPECS, model_path=folder / "model.onnx")
    assert source.description == "test data beside the model (4 test data sets)"
    assert not source.synthetic


def test_beside_the_model_but_of_another_one(folder):
    with pytest.raises(SippError, match=r"'ids', 'more'.*is used because no calibration data"):
        open_source(
            None,
            [*SPECS, InputSpec("more", np.dtype(np.float32), ())],
            model_path=folder / "model.onnx",
        )


def test_more_than_ten_inputs_are_in_numeric_order(tmp_path):
    specs = [InputSpec(f"i{k}", np.dtype(np.float32), ()) for k in range(12)]
    write_set(tmp_path / "test_data_set_0", *(np.float32(k) for k in range(12)))
    (feed,) = open_source(tmp_path, specs)
    assert [float(value) for value in feed.values()] == list(range(12))


def test_a_missing_input(folder):
    (folder / "test_data_set_1" / "input_1.pb").unlink()
    with pytest.raises(SippError, match=r"set_1: holds 1 .* has 2 inputs: 'x', 'ids'"):
        open_source(folder, SPECS)


def test_shape_type_and_value_errors_name_the_file(tmp_path):
    write_set(tmp_path / "test_data_set_0", np.zeros((1, 4), np.float32), [1])
    with pytest.raises(SippError, match=r"input_0.pb: input 'x' must have shape \[N, 3\]"):
        open_source(tmp_path, SPECS)
    write_set(tmp_path / "b" / "test_data_set_0", np.zeros((1, 3), np.float32), [1.0])
    with pytest.raises(SippError, match=r"input_1.pb: input 'ids' must be int64"):
        open_source(tmp_path / "b", SPECS)
    write_set(tmp_path / "c" / "test_data_set_0", np.full((1, 3), np.nan, np.float32), [1])
    with pytest.raises(SippError, match=r"input_0.pb: input 'x' holds nan"):
        open_source(tmp_path / "c", SPECS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty or no ONNX tensor"),
        (b"garbage!!" * 3, "is no ONNX tensor or is damaged"),
        (numpy_helper.from_array(np.zeros((1, 3), np.float32)).SerializeToString()[:-3], "damaged"),
        (
            onnx.TensorProto(data_type=1, dims=[1, 3], raw_data=bytes(8)).SerializeToString(),
            "cannot be read",
        ),
    ],
)
def test_broken_files(folder, content, message):
    (folder / "test_data_set_1" / "input_0.pb").write_bytes(content)
    with pytest.raises(SippError, match=f"input_0.pb: .*{message}"):
        open_source(folder, SPECS)


def test_data_in_another_file_is_not_read(folder):
    tensor = onnx.TensorProto(data_type=1, dims=[1, 3], data_location=1)
    tensor.external_data.add(key="location", value="../secret")
    (folder / "test_data_set_0" / "input_0.pb").write_bytes(tensor.SerializeToString())
    with pytest.raises(SippError, match="another file, which is not read"):
        open_source(folder, SPECS)


def test_claims_and_devices_are_refused(tmp_path):
    place = write_set(tmp_path / "test_data_set_0", np.ones((1, 3), np.float32)) / "input_0.pb"
    claim = onnx.TensorProto(data_type=1, dims=[1 << 62, 1 << 62], raw_data=bytes(12))
    place.write_bytes(claim.SerializeToString())
    with pytest.raises(SippError, match="impossible dims"):
        open_source(tmp_path, SPECS[:1])
    place.unlink()
    place.symlink_to("/dev/zero")
    with pytest.raises(SippError, match="no regular file"):
        open_source(tmp_path, SPECS[:1])
