"""Parts of arrays in files."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_sipp.slabs import as_bytes, read_slab, write_slab


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    data=st.data(),
    offset=st.integers(0, 9),
)
def test_a_slab_is_what_numpy_slices(tmp_path_factory, shape, data, offset):
    axis = data.draw(st.integers(0, len(shape) - 1))
    start = data.draw(st.integers(0, shape[axis]))
    stop = data.draw(st.integers(start, shape[axis]))
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    index = (slice(None),) * axis + (slice(start, stop),)
    path = tmp_path_factory.mktemp("slab") / "array"
    path.write_bytes(b"\7" * offset + array.tobytes() + b"end")
    with path.open("rb") as stream:
        found = read_slab(stream, offset, tuple(shape), array.dtype, axis, slice(start, stop))
    np.testing.assert_array_equal(found, array[index])
    path.write_bytes(array.tobytes())
    with path.open("r+b") as stream:
        write_slab(stream, tuple(shape), axis, start, -array[index])
    array[index] *= -1
    assert path.read_bytes() == array.tobytes()


def test_a_file_that_ends_early(tmp_path):
    (tmp_path / "array").write_bytes(bytes(15))
    with (tmp_path / "array").open("rb") as stream, pytest.raises(OSError, match="ends early"):
        read_slab(stream, 0, (4, 4), np.dtype(np.uint8), 0, slice(3, 4))


@pytest.mark.parametrize("value", [np.float32(3).reshape(()), np.zeros((0, 2)), np.eye(3)[:, ::2]])
def test_bytes(value):
    assert bytes(as_bytes(value)) == value.tobytes()
