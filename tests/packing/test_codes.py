"""Codes of places, decoded by a plain loop."""

import numpy as np
import pytest

from onnx_sipp.packing.codes import gaps_of, kept_places, mask_of, nibbles_of, usual_element


def arrays():
    rng = np.random.default_rng(0)
    for density in (0, 0.003, 0.05, 0.3, 0.9, 1):
        values = rng.standard_normal(3001).astype(np.float32)
        yield np.where(rng.random(3001) < density, values, np.float32(0))
    long = np.zeros(2000, np.float32)
    long[[0, 255, 256, 511, 1022, 1999]] = 1  # gaps around the limits of a byte
    yield long
    short = np.zeros(200, np.float32)
    short[[14, 29, 30, 46, 77, 199]] = 1  # and of four bits
    yield short


@pytest.fixture(params=list(arrays()), ids=range(8))
def flat(request):
    return request.param


def encoded(encoder, flat):
    usual = usual_element(flat)
    return encoder(flat, usual, kept_places(flat, usual))


def test_mask(flat):
    codes = encoded(mask_of, flat)
    bits = [byte >> bit & 1 for byte in codes.data.tolist() for bit in range(8)]
    values = iter(codes.values[1:])
    decoded = [next(values) if bit else codes.values[0] for bit in bits[: codes.count]]
    assert np.array_equal(decoded, flat)
    assert codes.data.size == -(-flat.size // 8)
    assert sum(bits[codes.count :]) == 0


def test_nibbles(flat):
    codes = encoded(nibbles_of, flat)
    nibbles = [half for byte in codes.data.tolist() for half in (byte & 15, byte >> 4)]
    decoded = np.zeros_like(flat)
    place, values = 0, iter(codes.values[1:])
    for nibble in nibbles[: codes.count]:
        place += nibble
        if nibble < 15:
            decoded[place] = next(values)
            place += 1
    assert np.array_equal(decoded, flat)
    assert next(values, None) is None
    assert codes.data.size == -(-codes.count // 2)


def test_gaps(flat):
    codes = encoded(gaps_of, flat)
    decoded = np.zeros_like(flat)
    places = np.cumsum(codes.data.astype(np.int64))
    decoded[places] = codes.values
    assert np.array_equal(decoded, flat)
    assert np.unique(places).size == places.size == codes.values.size


def test_bits_decide_what_is_zero():
    """Negative zeros and NaN are elements like others."""
    flat = np.array([0.0, -0.0, np.nan, 0.0, 1e-45], np.float32)
    assert kept_places(flat, usual_element(flat)).tolist() == [1, 2, 4]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_the_usual_level_is_left_out(dtype):
    flat = np.array([7, 3, 7, 7, 9], dtype)
    usual = usual_element(flat)
    assert usual.tolist() == [7]
    assert usual.dtype == dtype
    assert kept_places(flat, usual).tolist() == [1, 4]
