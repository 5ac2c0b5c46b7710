"""Large constants reach a runtime without a copy."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_models import mlp, save_external, weights

from onnx_sipp.calibration.runner import Runner
from onnx_sipp.graph.handing_over import mapped
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model


def test_large_external_constants_are_mapped(tmp_path, monkeypatch):
    model = Model.load(save_external(mlp(), tmp_path / "m.onnx"))
    assert mapped(model.sites, "w1") is None
    assert model.constant_bytes("w1") == 128
    monkeypatch.setattr("onnx_sipp.graph.handing_over.MAPPED_BYTES", 128)
    np.testing.assert_array_equal(mapped(model.sites, "w1"), weights(4, 8))
    assert mapped(model.sites, "b1") is None
    assert mapped(Model.load(mlp()).sites, "w1") is None


def test_large_constants_in_memory_are_lent(monkeypatch):
    monkeypatch.setattr("onnx_sipp.graph.handing_over.MAPPED_BYTES", 96)
    proto = mlp()
    proto.metadata_props.add(key="author", value="somebody")
    model = Model.load(proto)
    data, where, lent = model.runnable(["h"])
    assert where is None
    assert set(lent) == {"w1", "w2"}
    np.testing.assert_array_equal(lent["w1"], weights(4, 8))
    sent = onnx.load_from_string(data)
    assert not any(t.raw_data for t in sent.graph.initializer if t.name in lent)
    whole = model.inlined()
    whole.graph.output.add(name="h")
    for message in (sent, whole):
        for initializer in message.graph.initializer:
            initializer.Clear()
    assert sent == whole  # but for the elements, it is the same message


@pytest.mark.parametrize("load", [Model.load, lambda proto: lower(Model.load(proto))])
def test_what_is_lent_is_computed_with(monkeypatch, load):
    feed = {"x": np.ones((3, 4), np.float32)}
    expected = Runner(load(mlp()), ["h", "y"]).run(feed)
    monkeypatch.setattr("onnx_sipp.graph.handing_over.MAPPED_BYTES", 96)
    changed = load(mlp())
    assert changed.runnable(["h"]).lent
    for name, value in Runner(changed, ["h", "y"]).run(feed).items():
        np.testing.assert_array_equal(value, expected[name])
    changed.replace("w1", np.zeros((4, 8), np.float32))
    assert not np.array_equal(Runner(changed).run(feed)["y"], expected["y"])


def test_what_a_feed_may_replace_is_not_lent(monkeypatch):
    monkeypatch.setattr("onnx_sipp.graph.handing_over.MAPPED_BYTES", 96)
    proto = mlp()
    proto.graph.input.append(helper.make_tensor_value_info("w1", TensorProto.FLOAT, [4, 8]))
    assert set(Model.load(proto).runnable().lent) == {"w2"}
