"""Random inputs."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from onnx_sipp.calibration.sources import InputSpec, open_source
from onnx_sipp.errors import UsageError


def spec(name, dtype, shape):
    return InputSpec(name, np.dtype(dtype), shape)


SPECS = (
    spec("image", np.float32, ("N", 3, 5, 5)),
    spec("half", ml_dtypes.bfloat16, (4, "seq")),
    spec("ids", np.int64, ("N", "seq")),
    spec("bytes", np.uint8, (None, None)),
    spec("mask", np.bool_, ("seq2", "seq")),
    spec("rate", np.float32, ()),
)


def test_types_shapes_and_values():
    source = open_source(None, SPECS)
    assert source.synthetic
    assert source.description == "synthetic: 32 seeded random samples"
    assert len(source) == 32
    feeds = list(source)
    assert len(feeds) == 32
    for feed in feeds:
        assert {name: value.shape for name, value in feed.items()} == {
            "image": (1, 3, 5, 5),
            "half": (4, 8),
            "ids": (1, 8),
            "bytes": (1, 8),
            "mask": (1, 8),
            "rate": (),
        }
        assert [value.dtype for value in feed.values()] == [spec.dtype for spec in SPECS]
    images = np.stack([feed["image"] for feed in feeds])
    assert abs(images.mean()) < 0.1
    assert abs(images.std() - 1) < 0.1
    for name in ("ids", "bytes", "mask"):
        assert set(np.unique(np.stack([feed[name] for feed in feeds])).tolist()) == {0, 1}


def test_the_seed_and_the_number_decide():
    def images(seed, count):
        return [feed["image"] for feed in open_source(None, SPECS, num_samples=count, seed=seed)]

    first, longer, other = images(1, 3), images(1, 5), images(2, 3)
    np.testing.assert_array_equal(first, longer[:3])
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], other[0])


def test_it_can_be_gone_through_again():
    source = open_source(None, SPECS, num_samples=4)
    assert source.description == "synthetic: 4 seeded random samples"
    one, two = ([feed["image"] for feed in source] for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_guessed_sizes_are_told():
    (note,) = open_source(None, SPECS).notes
    assert note.startswith("sizes that the model leaves open were set to 8 (seq, bytes[1]); give")
    assert open_source(None, SPECS[:1]).notes == ()


def test_given_shapes_reach_other_inputs_by_their_symbols():
    shapes = {"ids": (2, 7)}
    (feed,) = open_source(None, SPECS, num_samples=1, input_shapes=shapes)
    assert feed["ids"].shape == (2, 7)
    assert feed["half"].shape == (4, 7)
    assert feed["image"].shape == (2, 3, 5, 5)


def test_a_symbol_that_is_a_batch_anywhere_is_one_everywhere():
    specs = [spec("state", np.float32, (2, "N", 4)), spec("x", np.float32, ("N", 4))]
    (feed,) = open_source(None, specs, num_samples=1)
    assert feed["state"].shape == (2, 1, 4)


def test_unknown_rank_needs_a_shape():
    specs = [spec("x", np.float32, None)]
    with pytest.raises(UsageError, match="'x' declares no shape"):
        open_source(None, specs)
    (feed,) = open_source(None, specs, num_samples=1, input_shapes={"x": (1, 6)})
    assert feed["x"].shape == (1, 6)


def test_negative_seed():
    with pytest.raises(UsageError, match="seed must be 0 or more"):
        open_source(None, SPECS, seed=-1)


def test_no_test_data_beside_the_model(tmp_path):
    assert open_source(None, SPECS, model_path=tmp_path / "model.onnx").synthetic


def test_huge_inputs_are_not_made_up():
    with pytest.raises(UsageError, match=r"'x' has the shape \[1, 1099511627776\].*4,194,304 MiB"):
        open_source(None, [spec("x", np.float32, ("N", 1 << 40))])
