"""Small least squares problems, exact in float64."""

import numpy as np

from onnx_sipp.pruning.evidence import Evidence
from onnx_sipp.statistics.input_moments import Moments
from onnx_sipp.statistics.regression import Regression


def mixed_inputs(rng, groups, fan_in, count, correlation=0.5):
    """Inputs ``[group, fan_in, count]`` that share some of their variation."""
    own = rng.standard_normal((groups, fan_in, count))
    return own + correlation * rng.standard_normal((groups, 1, count))


def regression(inputs, targets, *, centred=False):
    """The problem of inputs ``[group, fan_in, n]`` and targets ``[group, out, n]``."""
    count = inputs.shape[2]
    mean_input, mean_target = inputs.mean(axis=2), targets.mean(axis=2)
    if centred:
        inputs, targets = inputs - mean_input[..., None], targets - mean_target[..., None]
    return Regression(
        moments=Moments(inputs @ inputs.transpose(0, 2, 1) / count),
        cross=targets @ inputs.transpose(0, 2, 1) / count,
        power=(targets**2).mean(axis=2),
        mean_input=mean_input,
        mean_target=mean_target,
        centred=centred,
        count=count,
    )


def layer(seed, shape=(1, 4, 6), count=300, correlation=0.5):
    """A problem whose targets are the dense outputs, and the dense weight."""
    rng = np.random.default_rng(seed)
    groups, _, fan_in = shape
    inputs = mixed_inputs(rng, groups, fan_in, count, correlation)
    weight = rng.standard_normal(shape)
    return regression(inputs, weight @ inputs), weight


def unjudged(seed, problem, weight, *, gains, samples):
    """Evidence of a layer without held-out samples, with sensitivities and gains at random."""
    rng = np.random.default_rng(seed)
    return Evidence(
        weight=weight,
        sensitivity=rng.random(weight.shape),
        fit=problem,
        check=None,
        gain=rng.uniform(*gains, weight.shape[:2]),
        samples=samples,
    )
