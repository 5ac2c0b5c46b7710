"""What a sample costs, and how many samples that allows."""

import numpy as np
import pytest

import onnx_sipp
from onnx_sipp import workload
from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.samples import open_samples
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.store import TensorStore


def opened(models, data=None, count=None):
    model = Model.load(models / "lenet5.onnx")
    samples = open_samples(
        model, data, num_samples=count, seed=0, input_shapes={}, providers=None
    )  # fmt: skip
    return lower(model), samples


def test_multiplications_are_those_of_the_model(models):
    model, samples = opened(models)
    layers = find_layers(model).layers
    execution = Execution(samples.inputs, TensorStore())
    counts = workload.patch_counts(execution, model, layers, samples)
    assert counts == {"conv1": 64, "conv2": 16, "fc1": 1, "fc2": 1, "fc3": 1}
    expected = 64 * 16 * 9 + 16 * 32 * 16 * 9 + 120 * 128 + 84 * 120 + 10 * 84
    assert workload.multiplications(layers, counts) == expected


@pytest.mark.parametrize(("work", "count"), [(1, 32), (3 * 10**9, 10), (10**15, 2)])
def test_costly_samples_are_made_up_in_smaller_numbers(models, work, count):
    _, samples = opened(models)
    fewer = workload.made_up_for(samples, work, None)
    assert len(fewer.calibration) + len(fewer.held_out) == count
    assert len(fewer.held_out) >= 1
    assert workload.made_up_for(samples, work, 32) is samples  # somebody asked for them


def test_given_samples_are_all_used(models):
    data = {"input": np.zeros((40, 1, 8, 8), np.float32)}
    _, samples = opened(models, data)
    assert workload.made_up_for(samples, 10**15, None) is samples


@pytest.mark.parametrize(("work", "count"), [(1, 256), (3 * 10**9, 100), (10**15, 4)])
def test_a_certificate_takes_what_can_be_afforded(models, work, count):
    data = {"input": np.zeros((400, 1, 8, 8), np.float32)}
    _, samples = opened(models, data, 400)
    assert len(workload.certified_on(samples, work)) == count


def test_the_report_says_how_many_were_made_up(models, monkeypatch):
    monkeypatch.setattr(workload, "_MADE_UP_WORK", 1e6)
    result = onnx_sipp.prune(models / "lenet5.onnx", sparsity=0.5)
    data = result.report.calibration
    assert data.samples + data.held_out < 32
    assert "are used" in data.source
