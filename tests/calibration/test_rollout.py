"""States fed back from one sample to the next."""

import numpy as np
import pytest
from small_models import cell, make_model, weights

import onnx_sipp
from onnx_sipp.calibration.execution import Execution
from onnx_sipp.calibration.fidelity import measure_fidelity
from onnx_sipp.calibration.runner import Runner
from onnx_sipp.calibration.samples import open_samples
from onnx_sipp.errors import SippError, UsageError
from onnx_sipp.graph.model import Model
from onnx_sipp.progress import Silent
from onnx_sipp.store import TensorStore

X = weights(12, 4)


def states_by_hand(x, first=None, restarts=(0,)):
    """The state before each step."""
    model = Model(cell())
    state, start = None, np.zeros((1, 2), np.float32) if first is None else first
    before = []
    for index, row in enumerate(x):
        state = start if index in restarts else state
        before.append(state[0])
        state = np.tanh(row[None] @ model.read("w") + state @ model.read("u"))
    return np.array(before)


def opened(data, **options):
    settings = {"num_samples": None, "seed": 0, "input_shapes": {}, "providers": None}
    return open_samples(Model(cell()), data, **settings | options)


def states_of(samples):
    return np.concatenate([feed["h0"] for feed in samples.calibration.source])


def test_a_state_starts_at_zero_and_is_fed_back():
    samples = opened({"x": X})
    assert samples.states == {"h0": "hn"}
    np.testing.assert_allclose(states_of(samples), states_by_hand(X), atol=1e-6)
    assert "1 sequence, h0 fed back from hn" in samples.description


def test_a_first_value_is_where_sequences_start():
    first = weights(1, 2, seed=5)
    samples = opened({"x": X, "h0": first}, state_reset=5)
    expected = states_by_hand(X, first, (0, 5, 10))
    np.testing.assert_allclose(states_of(samples), expected, atol=1e-6)


def test_states_that_come_with_every_sample_are_taken():
    given = weights(12, 2, seed=5)
    samples = opened({"x": X, "h0": given})
    assert states_of(samples).tobytes() == given.tobytes()
    assert "fed back" not in samples.description


def test_a_feed_with_a_state_starts_a_sequence():
    feeds = [{"x": row[None]} for row in X]
    feeds[4]["h0"] = np.full((1, 2), 0.25, np.float32)
    states = states_of(opened(feeds))
    np.testing.assert_allclose(states[:4], states_by_hand(X[:4]), atol=1e-6)
    expected = states_by_hand(X[4:], np.full((1, 2), 0.25, np.float32))
    np.testing.assert_allclose(states[4:], expected, atol=1e-6)


def test_every_file_of_a_folder_is_a_sequence(tmp_path):
    for index, rows in enumerate(np.split(X, [3, 7])):
        np.savez(tmp_path / f"{index}.npz", x=rows)
    expected = states_by_hand(X, restarts=(0, 3, 7))
    np.testing.assert_allclose(states_of(opened(tmp_path)), expected, atol=1e-6)
    np.savez(tmp_path / "1.npz", x=X[3:7], h0=weights(4, 2))
    with pytest.raises(SippError, match="no array for the state 'h0', but other files have one"):
        opened(tmp_path)


def test_sequences_of_one_sample_are_pointed_out(tmp_path):
    for index, row in enumerate(X):
        np.save(tmp_path / f"{index:02}.npy", row)
    samples = opened(tmp_path)
    assert not states_of(samples).any()
    assert any("no state is ever fed back" in warning for warning in samples.warnings)
    samples = opened(tmp_path, state_reset=6)
    expected = states_by_hand(X, restarts=(0, 6))
    np.testing.assert_allclose(states_of(samples), expected, atol=1e-6)


def test_made_up_samples_roll_out_too():
    samples = opened(None)
    source = list(samples.calibration.source)
    x = np.concatenate([feed["x"] for feed in source])
    np.testing.assert_allclose(states_of(samples), states_by_hand(x), atol=1e-6)


def test_whole_sequences_are_held_out():
    samples = opened({"x": weights(30, 4)}, state_reset=3)
    mask = samples.held_out.mask.reshape(10, 3)
    assert mask.sum() == 6
    assert set(mask.sum(1)) == {0, 3}
    assert samples.held_out.starts() == [True, False, False] * 2
    samples = opened({"x": X})
    assert samples.held_out.mask.tolist() == [False] * 10 + [True] * 2
    assert samples.calibration.starts() == [True] + [False] * 9


def test_no_states_on_request():
    with pytest.raises(SippError, match="no array for input 'h0'"):
        opened({"x": X}, states={})


def test_without_states_there_is_none_to_reset():
    given = {"x": X, "h0": np.zeros((len(X), 2), np.float32)}
    with pytest.raises(UsageError, match="leave state_reset out"):
        opened(given, states={}, state_reset=3)


def test_a_state_that_overflows_is_refused():
    model = make_model(
        [("Mul", "h0 big", "hn"), ("Add", "x hn", "y")],
        {"big": np.array([[1e30, 1e30]], np.float32)},
        inputs={"x": [1, 2], "h0": [1, 2]},
        outputs={"y": [1, 2], "hn": [1, 2]},
    )
    data = {"x": X[:, :2], "h0": np.ones((1, 2), np.float32)}
    settings = {"num_samples": None, "seed": 0, "input_shapes": {}, "providers": None}
    with pytest.raises(SippError, match="'h0' is not finite after sample 1"):
        open_samples(Model(model), data, **settings)


def test_fidelity_feeds_the_pruned_model_its_own_states():
    samples = opened({"x": X}, hold_out=False)
    other = cell(scale=0.4)
    models = [Model(model) for model in (cell(), other)]
    execution = Execution(samples.inputs, TensorStore())
    output, _ = measure_fidelity(execution, *models, samples.calibration, Silent(), samples.states)
    before, after = map(Runner, models)
    state, errors, powers = np.zeros((1, 2), np.float32), [], []
    for feed in samples.calibration:
        dense = before.run(feed)["y"]
        mine = after.run({"x": feed["x"], "h0": state})
        state = mine["hn"]
        errors.append(np.sum((mine["y"] - dense) ** 2))
        powers.append(np.sum(dense**2))
    assert output.relative_error == pytest.approx(np.sqrt(np.sum(errors) / np.sum(powers)), 1e-5)


def test_a_model_with_states_is_pruned():
    result = onnx_sipp.prune(cell(), {"x": weights(60, 4)}, sparsity=0.5)
    assert result.report.zeros == 9
    assert "fed back" in result.report.calibration.source
    again = onnx_sipp.prune(cell(), {"x": weights(60, 4)}, sparsity=0.5, states={"h0": "hn"})
    assert again.model == result.model
