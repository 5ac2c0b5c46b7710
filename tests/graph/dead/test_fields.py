"""Facts that broadcast."""

import numpy as np
import pytest

from onnx_sipp.graph.dead.fields import along, merged, project

NAN = np.nan


def test_merged_shortens_axes_along_which_nothing_differs():
    values = np.array([[1.0, NAN, 2.0], [1.0, NAN, 2.0]])
    np.testing.assert_array_equal(merged(values), [[1.0, NAN, 2.0]])
    np.testing.assert_array_equal(merged(values, keep=(0,)), values)
    assert merged(np.full((2, 3), NAN)).shape == (1, 1)
    assert merged(np.array([[1, 2], [1, 3]])).shape == (2, 2)


def test_along_gives_one_value_per_place():
    values = np.array([[[1.0, 1.0], [2.0, 3.0], [NAN, NAN]]])
    np.testing.assert_array_equal(along(values, 1), [1.0, NAN, NAN])


@pytest.mark.parametrize("shape", [(2, 3), (1, 3), (2, 1), (1, 1), (3,), (1,), ()])
def test_project_undoes_broadcasting(shape):
    for place in np.ndindex(2, 3):
        mask = np.zeros((2, 3), np.bool_)
        mask[place] = True
        numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)
        expected = np.zeros(shape, np.bool_)
        expected.ravel()[np.broadcast_to(numbers, (2, 3))[place]] = True
        np.testing.assert_array_equal(project(mask, shape), expected)


def test_project_spreads_a_mask_that_says_the_same_of_all():
    np.testing.assert_array_equal(project(np.array([[True]]), (2, 3)), np.ones((2, 3), np.bool_))
