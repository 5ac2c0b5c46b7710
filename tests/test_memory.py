"""A plan for the memory of the process."""

import numpy as np
import pytest

from onnx_sipp import memory
from onnx_sipp.memory import DEFAULT_LIMIT, Plan, peak_memory


def test_the_default_is_all_that_helps():
    for limit in (DEFAULT_LIMIT, 1 << 40):
        plan = Plan.within(limit)
        assert (plan.block, plan.sums) == (Plan.block, Plan.sums)


@pytest.mark.parametrize("inputs", [0, 100 << 20])
def test_less_memory_smaller_parts(inputs):
    plans = [Plan.within(limit << 20, inputs) for limit in range(0, 1500, 20)]
    blocks = [plan.block for plan in plans]
    assert blocks == sorted(blocks)
    assert [plan.sums for plan in plans] == sorted(plan.sums for plan in plans)
    assert blocks[0] >= 1 << 16
    assert blocks[-1] == Plan.block
    assert len(set(blocks)) > 2
    assert all(block & (block - 1) == 0 for block in blocks)


def test_what_layers_leave_holds_activations():
    wide = [Plan.within(limit << 20).live for limit in range(0, 4000, 20)]
    assert wide == sorted(wide)
    assert wide[0] == Plan.live
    assert max(wide) < 500 << 20
    narrow = Plan.within(DEFAULT_LIMIT, largest=1000)
    assert narrow.live > Plan.within(DEFAULT_LIMIT).live
    assert narrow.live + narrow.sums < DEFAULT_LIMIT // 2


def test_peak_memory():
    before = peak_memory()
    assert 10 << 20 < before < 1 << 40
    held = np.ones(before // 8 + (16 << 20))
    assert peak_memory() >= held.nbytes


def test_more_than_the_limit_is_told(monkeypatch):
    monkeypatch.setattr(memory, "peak_memory", lambda: 700 << 20)
    assert memory.excess(700 << 20, 0) == []
    assert memory.excess(650 << 20, 0) == []  # within a tenth
    (told,) = memory.excess(500 << 20, 600 << 20)
    assert "700 MiB" in told
    assert "(500 MiB)" in told
    assert memory.excess(500 << 20, 700 << 20) == []  # it had been taken before
