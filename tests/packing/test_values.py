"""Types of stored elements."""

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto

from onnx_sipp.packing.values import as_stored, relative_error

RNG = np.random.default_rng(0)


def test_exact():
    tensor = RNG.standard_normal((3, 4)).astype(np.float32)
    stored = as_stored(tensor, "exact")
    assert stored.elements.tobytes() == tensor.tobytes()
    assert (stored.casts, stored.scale, stored.size) == (False, None, 12)
    assert as_stored(tensor.astype(ml_dtypes.bfloat16), "exact") is None


def test_halves():
    tensor = RNG.standard_normal((3, 4))
    stored = as_stored(tensor, "fp16")
    assert stored.elements.dtype == np.float16
    assert (stored.data_type, stored.computed_type) == (TensorProto.DOUBLE, TensorProto.DOUBLE)


@pytest.mark.parametrize("axis", [0, 3])
def test_levels(axis):
    """The axis with scales of its own is the one that differs in size; half a step is lost."""
    tensor = RNG.standard_normal((8, 5, 3, 8)).astype(np.float32)
    shape = [1, 1, 1, 1]
    shape[axis] = 8
    tensor *= np.geomspace(1e-3, 1e3, 8, dtype=np.float32).reshape(shape)
    stored = as_stored(tensor, "int8")
    assert list(stored.scale.shape) == shape
    levels = stored.elements.reshape(tensor.shape)
    assert (np.abs(levels * stored.scale - tensor) <= 0.5001 * stored.scale).all()


@pytest.mark.parametrize("values", ["fp16", "int8"])
def test_what_stays_exact(values):
    for tensor in (
        np.array([1, np.inf], np.float32),
        np.array([1, np.nan], np.float32),
        np.array([1, 2], np.uint8),
    ):
        stored = as_stored(tensor, values)
        assert stored.elements.tobytes() == tensor.tobytes()
        assert not stored.casts
    assert not as_stored(np.array([1, 1e6], np.float32), "fp16").casts  # too large for a half
    assert as_stored(np.zeros((2, 2), np.float32), "int8").elements.tolist() == [0] * 4


def test_relative_error():
    one = np.array([3, 4], np.float32)
    assert relative_error(one, one) == 0
    assert relative_error(np.array([3, 3], np.float32), one) == pytest.approx(0.2)
    assert relative_error(np.array([1], np.float32), np.array([0], np.float32)) == np.inf
    nan = np.array([np.nan], np.float32)
    assert relative_error(nan, nan.copy()) == 0
