"""New weights, written to a model block by block."""

import numpy as np
import pytest
from parted_weights import parted

from onnx_sipp.graph.layers import find_layers
from onnx_sipp.rewriting import BlockWriter
from onnx_sipp.weight_groups import group_weights


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("size", [1, 4, 11, 12, 39, 40])
def test_what_is_written_block_by_block_is_the_weight(transposed, size):
    model, weight = parted(transposed, size)
    changed = model.copy()
    writer = BlockWriter(changed)
    for block in weight.blocks:
        writer.write(block, -block.stored_in(model))
    for block in weight.blocks:
        np.testing.assert_array_equal(block.matrix_in(changed), -block.matrix)
    (other,) = group_weights(changed, find_layers(changed).layers)
    np.testing.assert_array_equal(other.matrix, -weight.matrix)


def test_constants_in_the_message_are_replaced_once(monkeypatch):
    model, weight = parted(True, 11)
    changed, replaced = model.copy(), []
    monkeypatch.setattr(
        changed, "replace", lambda name, values: replaced.append((name, values.tolist()))
    )
    writer = BlockWriter(changed)
    for block in weight.blocks:
        assert not replaced
        writer.write(block, block.stored_in(model))
    assert replaced == [(weight.name, model.read(weight.name).tolist())]
