"""The samples of a run."""

import numpy as np
import pytest
from small_models import mlp

from onnx_sipp.calibration.samples import DEFAULT_SAMPLES, open_samples
from onnx_sipp.graph.model import Model

DATA = np.arange(4 * 700, dtype=np.float32).reshape(700, 4)


def opened(data, **options):
    settings = {"num_samples": None, "seed": 0, "input_shapes": {}, "providers": None}
    return open_samples(Model(mlp()), data, **settings | options)


def rows(chosen):
    return [float(feed["x"][0, 0]) for feed in chosen]


def test_a_fifth_is_held_out():
    samples = opened(DATA[:100])
    assert (len(samples.calibration), len(samples.held_out)) == (80, 20)
    seen, held = rows(samples.calibration), rows(samples.held_out)
    assert sorted(seen + held) == DATA[:100, 0].tolist()
    assert seen == sorted(seen)
    assert rows(samples.calibration) == seen, "the feeds cannot be gone through twice"
    assert (samples.synthetic, samples.warnings) == (False, ())


def test_no_more_samples_than_the_default():
    samples = opened(DATA)
    assert len(samples.calibration) + len(samples.held_out) == DEFAULT_SAMPLES
    assert len(opened(DATA, num_samples=600, hold_out=False).calibration) == 600
    assert len(opened(DATA, default_samples=None, hold_out=False).calibration) == 700


def test_nothing_held_out():
    samples = opened(DATA[:10], hold_out=False)
    assert len(samples.calibration) == len(samples.held_out) == 10
    assert samples.warnings == ()


def test_a_single_sample_is_judged_by_itself():
    samples = opened(DATA[:1])
    assert rows(samples.held_out) == rows(samples.calibration) == [0.0]
    assert any("single sample" in warning for warning in samples.warnings)


def test_made_up_inputs_are_warned_of():
    samples = opened(None)
    assert samples.synthetic
    assert samples.warnings[0].startswith("NO CALIBRATION DATA")


@pytest.mark.parametrize("hold_out", [True, False])
def test_made_up_inputs_depend_on_the_seed(hold_out):
    first, same, other = (
        rows(opened(None, seed=seed, hold_out=hold_out).calibration) for seed in (1, 1, 2)
    )
    assert first == same
    assert first != other
