"""Products in onnxruntime, on its CPU provider: the same code runs on others."""

import pickle
from copy import deepcopy

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_sipp import SippError, UsageError
from onnx_sipp.calibration import multiplying
from onnx_sipp.calibration.multiplying import RuntimeMultiplier, multiplier_for
from onnx_sipp.statistics.multiplying import NUMPY

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
BOTH = {"numpy": NUMPY, "onnxruntime": RuntimeMultiplier(CPU)}


def matrix(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize("multiplier", BOTH.values(), ids=BOTH)
@given(
    groups=st.sampled_from([(), (1,), (3,)]),
    sizes=st.tuples(*[st.integers(0, 9)] * 3),
    views=st.tuples(st.booleans(), st.booleans()),
    transposed=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_products_are_those_of_float64(multiplier, groups, sizes, views, transposed):
    m, k, n = sizes
    x, b = matrix(0, *groups, m, k), matrix(1, *groups, k, n)
    expected = x.astype(np.float64) @ b.astype(np.float64)
    if transposed:
        b = np.ascontiguousarray(b.swapaxes(-1, -2))
    x, b = (
        np.asfortranarray(values) if view else values
        for values, view in zip((x, b), views, strict=True)
    )
    before = x.copy(), b.copy()
    held = multiplier.hold(b)
    for _ in range(2):
        found = held.times_transposed(x) if transposed else held.times(x)
        assert found.dtype == np.float32
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        found += 1  # it is the caller's
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(b, before[1])


@pytest.mark.parametrize("multiplier", BOTH.values(), ids=BOTH)
def test_a_matrix_with_itself(multiplier):
    values = matrix(2, 5, 40)
    found = multiplier.hold(values).times_transposed(values)
    np.testing.assert_allclose(found, values.astype(np.float64) @ values.T, rtol=1e-5, atol=1e-5)


def test_sums_of_nothing_are_not_left_to_onnxruntime():
    held = RuntimeMultiplier("NoSuch").hold(matrix(0, 4, 0))
    np.testing.assert_array_equal(held.times_transposed(matrix(1, 3, 0)), np.zeros((3, 4)))


def test_a_held_matrix_is_copied_once(monkeypatch):
    copied = []
    real = RuntimeMultiplier.value

    def value(self, values):
        copied.append(values.shape)
        return real(self, values)

    monkeypatch.setattr(RuntimeMultiplier, "value", value)
    held = RuntimeMultiplier(CPU).hold(b := matrix(0, 4, 4))
    for _ in range(3):
        held.times(matrix(1, 2, 4))
    held.times_transposed(b)
    assert copied == [(4, 4)] + [(2, 4)] * 3


def test_a_session_is_opened_once_per_kind_of_product(monkeypatch):
    opened = []
    real = multiplying.open_session
    monkeypatch.setattr(
        multiplying, "open_session", lambda *a, **k: opened.append(k) or real(*a, **k)
    )
    made = RuntimeMultiplier(CPU)
    assert not opened
    for multiplier in (made, deepcopy(made), made):
        for _ in range(2):
            multiplier.hold(matrix(0, 3, 3)).times(matrix(1, 2, 3))
    assert [k["providers"] for k in opened] == [[CPU]]
    made.hold(matrix(0, 3, 3)).times_transposed(matrix(1, 2, 3))
    assert len(opened) == 2


def test_it_can_be_sent_to_another_process():
    made = RuntimeMultiplier(CPU)
    x, b = matrix(0, 2, 3), matrix(1, 3, 4)
    expected = made.hold(b).times(x)
    again = pickle.loads(pickle.dumps(made))
    np.testing.assert_array_equal(again.hold(b).times(x), expected)


@pytest.mark.parametrize(
    ("providers", "expected"),
    [
        (None, None),
        ([], None),
        ([CPU], None),
        ([CPU, CUDA], None),
        (["OpenVINOExecutionProvider", CPU], None),
        ([CUDA], CUDA),
        ([CUDA, CPU], CUDA),
        (["TensorrtExecutionProvider", CUDA, CPU], CUDA),
    ],
    ids=str,
)
def test_cuda_multiplies_if_it_comes_before_the_cpu(providers, expected):
    found = multiplier_for(providers)
    assert getattr(found, "_provider", None) == expected
    assert (found is NUMPY) == (expected is None)


# --- what goes wrong ---------------------------------------------------------------------------


@pytest.fixture
def stand_in(monkeypatch):
    """A session on CUDA that calculates on the CPU."""

    made = []

    class Session:
        used = (CUDA, CPU)
        real = ort.InferenceSession

        def __init__(self, source, options, providers):
            self.asked, self.falls_back = providers, True
            self.own = self.real(source, options, providers=[CPU])
            made.append(self)

        def get_providers(self):
            return list(self.used)

        def disable_fallback(self):
            self.falls_back = False

        def run_with_ort_values(self, *arguments):
            assert not self.falls_back  # onnxruntime would go on on the CPU, and only print so
            return self.own.run_with_ort_values(*arguments)

    monkeypatch.setattr(ort, "InferenceSession", Session)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(multiplying, "_DEVICES", {})
    return Session, made


def test_float32_stays_float32_on_cuda(stand_in):
    _, made = stand_in
    x, b = matrix(1, 2, 3), matrix(0, 3, 3)
    np.testing.assert_allclose(RuntimeMultiplier(CUDA).hold(b).times(x), x @ b, rtol=1e-5)
    (session,) = made
    assert session.asked == [(CUDA, {"use_tf32": "0"})]


def test_a_provider_that_onnxruntime_leaves_out(stand_in):
    stand_in[0].used = (CPU,)
    held = RuntimeMultiplier(CUDA).hold(matrix(0, 3, 3))
    with pytest.raises(SippError, match=f"has {CUDA} but cannot use it here; check its driver"):
        held.times(matrix(1, 2, 3))


def test_a_provider_that_is_not_there():
    held = RuntimeMultiplier("NoSuch").hold(matrix(0, 3, 3))
    with pytest.raises(UsageError, match="has no execution provider 'NoSuch'"):
        held.times(matrix(1, 2, 3))


def test_a_product_that_fails():
    held = RuntimeMultiplier(CPU).hold(matrix(0, 3, 5))
    with pytest.raises(SippError, match=r"fails to multiply on CPU\S+, matrices of \[2, 4\] and"):
        held.times(matrix(1, 2, 4))


def test_no_room_for_a_matrix(monkeypatch):
    def full(*_):
        raise RuntimeError("Failed to allocate memory for requested buffer of size 36\ntrace")

    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_numpy", full)
    with pytest.raises(SippError, match=r"of \[3, 3\]: Failed .* size 36\nRun with --providers"):
        RuntimeMultiplier(CPU).hold(matrix(0, 3, 3))
