"""Payloads are read and written back in the field they came from."""

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_sipp.errors import SippError
from onnx_sipp.graph.tensors import (
    FLOAT_TYPES,
    is_external,
    is_parameter,
    numpy_dtype,
    packed_bytes,
    payload_bytes,
    read_inline,
    read_numbers,
    read_packed,
    write_inline,
    write_numbers,
)

FIELDS = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.FLOAT16: "int32_data",
    TensorProto.BFLOAT16: "int32_data",
}
every_type = pytest.mark.parametrize(
    "data_type", sorted(FIELDS), ids=[TensorProto.DataType.Name(t) for t in sorted(FIELDS)]
)


def made(data_type, values, *, raw):
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(data_type))
    array = np.asarray(values).astype(dtype)
    if raw:
        return helper.make_tensor("t", data_type, array.shape, array.tobytes(), raw=True)
    tensor = TensorProto(name="t", data_type=data_type, dims=array.shape)
    flat = array.ravel()
    flat = flat.view(np.uint16) if FIELDS[data_type] == "int32_data" else flat
    getattr(tensor, FIELDS[data_type]).extend(flat.tolist())
    return tensor


def test_all_float_types_are_tried():
    assert set(FIELDS) == FLOAT_TYPES


@every_type
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_round_trip(data_type, raw):
    tensor = made(data_type, [[1.5, -2.0, 0.25], [0.0, 3.0, -0.5]], raw=raw)
    tensor.doc_string = "kept"
    before = TensorProto()
    before.CopyFrom(tensor)

    values = read_inline(tensor)
    assert values.dtype == numpy_dtype(tensor)
    np.testing.assert_array_equal(values.astype(np.float64), [[1.5, -2.0, 0.25], [0.0, 3.0, -0.5]])
    write_inline(tensor, values)
    assert tensor == before

    changed = values.copy()
    changed[0, 0] = -7
    write_inline(tensor, changed)
    assert read_inline(tensor).tobytes() == changed.tobytes()
    assert tensor.HasField("raw_data") == raw
    field = "raw_data" if raw else FIELDS[data_type]
    for either in (tensor, before):
        either.ClearField(field)
    assert tensor == before


@every_type
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_values_not_contiguous(data_type, raw):
    tensor = made(data_type, np.zeros((2, 3)), raw=raw)
    values = np.arange(6, dtype=np.float32).reshape(3, 2).T.astype(numpy_dtype(tensor), order="K")
    assert not values.flags.c_contiguous
    write_inline(tensor, values)
    np.testing.assert_array_equal(read_inline(tensor), values)


def test_bfloat16_keeps_its_bits():
    bits = np.array([0x3F81, 0xBF80, 0x0000, 0x8000], np.uint16)
    tensor = made(TensorProto.BFLOAT16, np.zeros(4), raw=False)
    write_inline(tensor, bits.view(ml_dtypes.bfloat16))
    assert list(tensor.int32_data) == bits.tolist()


@pytest.mark.parametrize(
    "values", [np.zeros((3, 2), np.float32), np.zeros((2, 3), np.float64), np.zeros(6, np.float32)]
)
def test_other_shapes_and_types_are_refused(values):
    tensor = made(TensorProto.FLOAT, np.ones((2, 3)), raw=True)
    with pytest.raises(ValueError, match="t: "):
        write_inline(tensor, values)
    np.testing.assert_array_equal(read_inline(tensor), np.ones((2, 3)))


def test_a_damaged_payload_is_told():
    tensor = made(TensorProto.FLOAT, np.ones((2, 3)), raw=True)
    tensor.raw_data = tensor.raw_data[:-4]
    with pytest.raises(SippError, match="'t' cannot be read.*damaged"):
        read_inline(tensor)


def test_an_unknown_type_is_told():
    tensor = TensorProto(name="t", data_type=99, dims=[2])
    with pytest.raises(SippError, match="'t' has the unknown element type 99"):
        payload_bytes(tensor)


def test_negative_dims_are_told():
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[-1, 4])
    with pytest.raises(SippError, match="negative dims"):
        payload_bytes(tensor)


@pytest.mark.parametrize(
    ("data_type", "size"),
    [
        (TensorProto.FLOAT, 60),
        (TensorProto.FLOAT16, 30),
        (TensorProto.INT64, 120),
        (TensorProto.INT8, 15),
        (TensorProto.INT4, 8),
        (TensorProto.UINT4, 8),
    ],
)
def test_bytes(data_type, size):
    assert payload_bytes(TensorProto(data_type=data_type, dims=[3, 5])) == size


def test_bytes_of_scalars_and_empty_tensors():
    assert payload_bytes(TensorProto(data_type=TensorProto.FLOAT)) == 4
    assert payload_bytes(TensorProto(data_type=TensorProto.FLOAT, dims=[0, 7])) == 0


@pytest.mark.parametrize("name", ["INT8", "UINT8", "INT4", "UINT4", "INT16", "UINT16", "INT32"])
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_integers(name, raw):
    """Narrow types lie packed, two in a byte, also if their number is odd."""
    data_type = TensorProto.DataType.Value(name)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(data_type))
    values = np.array([[1, 2, 3], [7, 0, 5]])[:, : 3 - raw].astype(dtype)[:, ::-1]
    if raw:
        stored = numpy_helper.from_array(np.ascontiguousarray(values), "t")
    else:
        stored = helper.make_tensor("t", data_type, values.shape, values.astype(np.int32).ravel())
    before = TensorProto()
    before.CopyFrom(stored)
    np.testing.assert_array_equal(read_inline(stored), values)
    write_inline(stored, values)
    assert stored == before
    changed = values.copy()
    changed[0, 0] = 4
    write_inline(stored, changed)
    assert stored != before
    np.testing.assert_array_equal(read_inline(stored), changed)
    raw_bytes = np.frombuffer(packed_bytes(changed), np.uint8)
    assert raw_bytes.size == payload_bytes(stored)
    np.testing.assert_array_equal(read_packed(stored, raw_bytes), changed)


@pytest.mark.parametrize(
    ("name", "value", "new"),
    [
        ("value_float", 2.5, np.float32(-1)),
        ("value_floats", [1.0, 2.0], np.array([3, 4], np.float32)),
        ("value_int", 3, np.int64(9)),
        ("value_ints", [1, 2], np.array([3, 4])),
    ],
)
def test_plain_numbers(name, value, new):
    """A Constant node may hold its elements without a tensor."""
    attribute = helper.make_attribute(name, value)
    found = read_numbers(attribute)
    assert found.tolist() == value
    assert found.dtype == new.dtype
    write_numbers(attribute, np.asarray(new))
    assert attribute == helper.make_attribute(name, new.tolist())
    with pytest.raises(ValueError, match=name):
        write_numbers(attribute, np.zeros(5, new.dtype))


def test_what_counts_as_a_parameter():
    narrow = ["INT8", "UINT8", "INT4", "UINT4", "FLOAT8E4M3FN", "FLOAT8E5M2"]
    wide = ["INT16", "INT32", "INT64", "BOOL", "STRING"]
    kinds = {name: TensorProto.DataType.Value(name) for name in (*narrow, *wide)}
    assert all(is_parameter(TensorProto(data_type=t)) for t in (*FIELDS, *map(kinds.get, narrow)))
    assert not any(is_parameter(TensorProto(data_type=kinds[name])) for name in wide)
    assert is_parameter(helper.make_attribute("value_floats", [1.0]))
    assert not is_parameter(helper.make_attribute("value_ints", [1]))


def test_is_external():
    tensor = TensorProto()
    assert not is_external(tensor)
    tensor.data_location = TensorProto.EXTERNAL
    assert is_external(tensor)
