"""Compiled kernels."""

from types import SimpleNamespace

import numpy as np
import pytest

from onnx_sipp import compiled as module
from onnx_sipp.compiled import compiled


def total(values):
    result = 0.0
    for value in values:
        result += value
    return result


@pytest.mark.parametrize("cacheable", [True, False])
def test_compiles(monkeypatch, cacheable):
    """Also in a read-only installation without a home folder, where numba refuses to cache."""
    real = module.numba.njit

    def njit(**options):
        if options.get("cache") and not cacheable:
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(module, "numba", SimpleNamespace(njit=njit))
    kernel = compiled(fastmath=True)(total)
    assert kernel(np.arange(5.0)) == 10
    assert kernel.py_func is total
