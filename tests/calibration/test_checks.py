"""Checks of values, types and shapes, and the advice in their messages."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from onnx_sipp.calibration.checks import check_names, conform, convert
from onnx_sipp.calibration.specs import InputSpec
from onnx_sipp.errors import SippError


def spec(dtype=np.float32, shape=("N", 3)):
    return InputSpec("x", np.dtype(dtype), shape)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (np.float64, np.float32),
        (np.float32, np.float16),
        (np.float16, np.float32),
        (np.float32, ml_dtypes.bfloat16),
        (ml_dtypes.bfloat16, np.float32),
        (np.int32, np.int64),
        (np.int64, np.int32),
        (np.int64, np.uint8),
        (np.uint8, np.int64),
        (np.bool_, np.bool_),
        (np.dtype(">f4"), np.float32),
        (np.dtype(">i8"), np.int64),
    ],
)
def test_safe_casts(given, wanted):
    array = np.array([[0, 1, 1]]).astype(given)
    cast = conform(array, spec(wanted), "here")
    assert cast.dtype == wanted
    assert cast.dtype.isnative
    assert cast.flags.c_contiguous
    np.testing.assert_array_equal(cast.astype(int), [[0, 1, 1]])


def test_what_fits_is_not_copied():
    array = np.zeros((1, 3), np.float32)
    assert conform(array, spec(), "here") is array


def test_bfloat16_that_numpy_saved_as_raw_bytes():
    array = np.array([[1.5, 2, 3]], ml_dtypes.bfloat16)
    cast = conform(array.view("V2"), spec(ml_dtypes.bfloat16), "here")
    np.testing.assert_array_equal(cast, array)


@pytest.mark.parametrize(
    ("array", "wanted", "advice"),
    [
        (np.zeros((1, 3), np.uint8), np.float32, r"\(array / 255\)\.astype\(np\.float32\)"),
        (np.zeros((1, 3), np.int64), np.float32, r"`array\.astype\(np\.float32\)`"),
        (np.zeros((1, 3), np.float32), np.int64, r"`array\.astype\(np\.int64\)`"),
        (np.zeros((1, 3), np.bool_), np.int64, r"`array\.astype\(np\.int64\)`"),
        (np.zeros((1, 3), np.int64), np.bool_, r"`array\.astype\(np\.bool_\)`"),
        (np.zeros((1, 3), np.int8), ml_dtypes.bfloat16, r"ml_dtypes\.bfloat16"),
        (np.array([["a", "b", "c"]]), np.float32, "Give numbers"),
        (np.zeros((1, 3), np.complex64), np.float32, "Give numbers"),
        (np.array([[None, 1, 2]]), np.float32, "objects cannot be fed"),
    ],
)
def test_types_that_mean_something_else(array, wanted, advice):
    expected = f"^here: input 'x' must be {np.dtype(wanted).name}, but it is .*{advice}"
    with pytest.raises(SippError, match=expected):
        conform(array, spec(wanted), "here")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_floats_must_be_finite(bad):
    array = np.zeros((2, 3), np.float32)
    array[1, 2] = bad
    with pytest.raises(SippError, match=rf"here: input 'x' holds {bad} at \[1, 2\].*finite"):
        conform(array, spec(), "here")


def test_the_sample_is_named_where_rows_are_samples():
    array = np.zeros((4, 3), np.float32)
    array[1, 2] = np.nan
    with pytest.raises(SippError, match=r"here, sample 17: input 'x' holds nan at \[2\]"):
        convert(array, spec(), "here", 16)


@pytest.mark.parametrize(
    ("value", "given", "wanted"),
    [
        (1e39, np.float64, np.float32),
        (7e4, np.float32, np.float16),
        (300, np.int64, np.uint8),
        (-1, np.int64, np.uint64),
        (-1, np.int8, np.uint64),
        (2**63, np.uint64, np.int64),
        (2**31, np.int64, np.int32),
    ],
)
def test_values_must_fit(value, given, wanted):
    array = np.zeros((1, 3), given)
    array[0, 1] = value
    with pytest.raises(SippError, match=f"at \\[0, 1\\]. That does not fit {np.dtype(wanted)}"):
        conform(array, spec(wanted), "here")


@pytest.mark.parametrize(
    ("shape", "dims", "advice"),
    [
        ((28, 28), ("N", 28, 28), r"array\[np\.newaxis\]"),
        ((5, 32, 32, 3), ("N", 3, 32, 32), r"array\.transpose\(0, 3, 1, 2\)"),
        ((5, 3, 32, 32), ("N", 32, 32, 3), r"array\.transpose\(0, 2, 3, 1\)"),
        ((5, 20, 30, 3), ("N", 3, "H", "W"), r"array\.transpose\(0, 3, 1, 2\)"),
        ((5, 28, 28), ("N", 1, 28, 28), r"array\.reshape\(-1, 1, 28, 28\)"),
        ((5, 784), ("N", 1, 28, 28), r"array\.reshape\(-1, 1, 28, 28\)"),
        ((5, 1, 28, 28), ("N", 784), r"array\.reshape\(-1, 784\)"),
    ],
)
def test_shapes_with_advice(shape, dims, advice):
    with pytest.raises(SippError, match=rf"must have shape \[.*\], but it has \[.*Try `{advice}`"):
        conform(np.zeros(shape, np.float32), spec(shape=dims), "here")


@pytest.mark.parametrize(
    ("shape", "dims"), [((5, 7), ("N", 3)), ((), ("N", 3)), ((5, 3), (4, 3)), ((2,), ())]
)
def test_shapes_without_advice(shape, dims):
    with pytest.raises(SippError, match=r"must have shape \[.*\], but it has \[[^`]*\]$"):
        conform(np.zeros(shape, np.float32), spec(shape=dims), "here")


def test_no_sample():
    with pytest.raises(SippError, match="no sample"):
        conform(np.zeros((0, 3), np.float32), spec(), "here")


@pytest.mark.parametrize(
    ("shape", "dims"),
    [((4, 0), ("N", "past")), ((0, 3), (0, 3)), ((), ()), ((7, 2, 1), None), ((4, 3), (4, 3))],
)
def test_shapes_that_fit(shape, dims):
    assert conform(np.zeros(shape, np.float32), spec(shape=dims), "here").shape == shape


def test_python_values_become_arrays():
    assert conform([[1.0, 2.0, 3.0]], spec(), "here").dtype == np.float32
    assert conform(3, spec(np.int64, ()), "here").shape == ()
    with pytest.raises(SippError, match="here: input 'x' must be an array, but its list"):
        conform([[1.0], [2.0, 3.0]], spec(), "here")


class TestNames:
    specs = (spec(), InputSpec("mask", np.dtype(np.int64), ("N",)))

    def test_extra_names_are_returned(self):
        assert check_names(["mask", "labels", "x", "a"], self.specs, "here") == ["a", "labels"]

    def test_missing_with_a_guess(self):
        with pytest.raises(
            SippError,
            match=r"here: no array for input 'mask' of the model; found 'Masks', 'x', 'y'. "
            "Did you mean 'Masks' for 'mask'",
        ):
            check_names(["Masks", "x", "y"], self.specs, "here")

    def test_the_only_candidate_is_suggested_however_it_is_called(self):
        with pytest.raises(SippError, match=r"mean 'arr_0' for 'x'.*np.savez\(file, \*\*{'x'"):
            check_names(["arr_0"], self.specs[:1], "here")

    def test_nothing_there(self):
        with pytest.raises(SippError, match="input 'x', 'mask' of the model; found nothing"):
            check_names([], self.specs, "here")
