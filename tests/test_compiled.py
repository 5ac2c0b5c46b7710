"""Compiled kernels."""

import os
import subprocess
import sys
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
    kernel = compiled(total)
    assert kernel(np.arange(5.0)) == 10
    assert kernel.py_func is total


GREEDY = """
import sys
import numpy as np
from onnx_sipp.pruning.greedy import _greedy_rows
rng = np.random.default_rng(0)
for fan_in in (27, 64, 144):
    x = rng.standard_normal((fan_in, 2 * fan_in))
    inverse = np.linalg.inv(x @ x.T / (2 * fan_in) + 0.1 * np.eye(fan_in)).astype(np.float32)
    weight = rng.standard_normal((16, fan_in)).astype(np.float32)
    costs = _greedy_rows(inverse, weight, np.ones(weight.shape, np.bool_))
    sys.stdout.write(costs.tobytes().hex())
"""


def test_code_from_the_disk_gives_the_same_bytes_as_code_just_made(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    made, read = (
        subprocess.run(
            [sys.executable, "-c", GREEDY], env=environment, check=True, capture_output=True
        ).stdout
        for _ in range(2)
    )
    assert list(tmp_path.rglob("*.nbc"))
    assert made == read
