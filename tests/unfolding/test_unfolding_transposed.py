"""Patches of a transposed convolution times its weight matrix is what onnxruntime computes."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_unfolding import assert_same_pieces, outputs_of, random, single


@st.composite
def transposed_convolutions(draw):
    axes = draw(st.integers(1, 3))
    per_axis = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * axes))  # noqa: E731
    groups = draw(st.integers(1, 3))
    kernel, strides, dilations = per_axis(1, 3), per_axis(1, 3), per_axis(1, 2)
    spatial = per_axis(1, 4)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    attributes = {"strides": strides, "dilations": dilations, "group": groups}
    if draw(st.booleans()):
        attributes["output_padding"] = [draw(st.integers(0, s - 1)) for s in strides]
    added = attributes.get("output_padding", [0] * axes)
    whole = [(n - 1) * s + r + a for n, s, r, a in zip(spatial, strides, reach, added, strict=True)]
    kind = draw(st.sampled_from(["pads", "VALID", "SAME_UPPER", "SAME_LOWER", "shape"]))
    if kind == "pads":
        attributes["pads"] = [draw(st.integers(0, 2)) for _ in range(2 * axes)]
        cut = [a + b for a, b in zip(*np.split(np.array(attributes["pads"]), 2), strict=True)]
        assume(all(w > c for w, c in zip(whole, cut, strict=True)))
    elif kind == "shape":
        # onnxruntime refuses a shape that one more input would fit
        attributes["output_shape"] = [
            w + draw(st.integers(-2, s - 1 - a))
            for w, s, a in zip(whole, strides, added, strict=True)
        ]
        assume(min(attributes["output_shape"]) > 0)
        attributes["auto_pad"] = draw(st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER"]))
    else:
        attributes["auto_pad"] = kind
    shape = (groups * draw(st.integers(1, 2)), draw(st.integers(1, 2)), *kernel)
    return attributes, shape, (draw(st.integers(1, 2)), shape[0], *spatial), draw(st.integers(0, 9))


@settings(max_examples=100, deadline=None)
@given(transposed_convolutions())
def test_conv_transpose(case):
    attributes, shape, of_feed, seed = case
    rng = np.random.default_rng(seed)
    weight, samples = random(rng, *shape), 2
    activation = random(rng, samples, *of_feed)
    joined = activation.reshape(-1, *of_feed[1:])
    layer, expected = single("ConvTranspose", joined, weight, **attributes)
    np.testing.assert_array_equal(layer.view.to_stored(layer.view.to_matrix(weight)), weight)

    columns = layer.unfolding.unfold(activation)
    assert columns.dtype == np.float32
    assert layer.unfolding.patch_bytes(of_feed) * samples == columns.nbytes
    z = outputs_of(layer, weight, columns)
    z = z.reshape(-1, len(joined), *expected.shape[2:]).swapaxes(0, 1)
    np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-5)

    for limit in (1, layer.unfolding.patch_bytes(of_feed) // 3):
        assert_same_pieces(layer.unfolding, activation, max(1, limit))
        for a, (target,) in layer.unfolding.pairs(joined, [expected], max(1, limit)):
            np.testing.assert_allclose(outputs_of(layer, weight, a), target, rtol=1e-4, atol=1e-5)
