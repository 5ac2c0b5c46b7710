"""When a pass is repeated without the weights that did nothing."""

import numpy as np
import pytest
from small_models import make_model, weights

from onnx_sipp.budgeting.respend import spend_again
from onnx_sipp.graph.layers import find_layers
from onnx_sipp.graph.lowering import lower
from onnx_sipp.graph.model import Model
from onnx_sipp.outcome import Outcome
from onnx_sipp.refitting.idle import Idle
from onnx_sipp.weight_groups import group_weights

MODEL = lower(Model.load(make_model([("MatMul", "x w", "y")], {"w": weights(4, 10)})))
WEIGHTS = group_weights(MODEL, find_layers(MODEL).layers)


class Passes:
    """Passes with planned errors; in each another neuron of four weights is found dead."""

    def __init__(self, errors, *, wasteful=True, allowed=True):
        self.errors, self.wasteful, self.allowed = errors, wasteful, allowed
        self.made, self.left = [], []
        self.first = self.run()

    def run(self):
        self.made.append(Outcome(MODEL.copy(), []))
        return self.made[-1]

    def number(self, model):
        return [outcome.model for outcome in self.made].index(model)

    def idle(self, model):
        found = Idle.none(WEIGHTS[0])
        found.neurons[0, : self.number(model) + 1] = self.wasteful
        if self.number(model):  # what was dead before has no weights in this model
            model.replace("w", np.where(np.arange(10) < self.number(model), 0, MODEL.read("w")))
        return [found]

    def leave_out(self, idle):
        if self.allowed:
            self.left.append(idle)
        return self.allowed

    def spend(self, keep=20, left=()):
        return spend_again(
            self.first, WEIGHTS, keep, find=self.idle, leave_out=self.leave_out, again=self.run,
            error=lambda model: self.errors[self.number(model)] ** 2, left=left,
        )  # fmt: skip


def test_passes_go_on_while_they_help():
    passes = Passes([0.5, 0.4, 0.3, 0.2, 0.1])
    best = passes.spend()
    assert passes.number(best.model) == 3  # no more than three repeats
    assert list(best.respent.weights) == [12]
    assert list(best.respent.errors) == pytest.approx([0.5, 0.4, 0.3, 0.2])
    assert np.flatnonzero(best.respent.neurons[0]).tolist() == [0, 1, 2]
    assert [int(idle[0].neurons.sum()) for idle in passes.left] == [1, 2, 3]


def test_a_pass_that_does_not_help_is_not_used():
    passes = Passes([0.5, 0.4, 0.4, 0.2])
    best = passes.spend()
    assert passes.number(best.model) == 1
    assert list(best.respent.weights) == [4]
    assert list(best.respent.errors) == pytest.approx([0.5, 0.4])
    assert np.flatnonzero(best.respent.neurons[0]).tolist() == [0]


@pytest.mark.parametrize("how", [{"wasteful": False}, {"allowed": False}])
def test_nothing_is_repeated_for_nothing(how):
    passes = Passes([0.5, 0.4], **how)
    best = passes.spend()
    assert (best.model, len(passes.made)) == (passes.first.model, 1)
    assert list(best.respent.weights) == [0]


def test_little_is_not_worth_a_pass():
    passes = Passes([0.5, 0.4])
    passes.spend(keep=400)
    assert len(passes.made) == 1


def test_what_had_been_left_out_before_stays_dead():
    before = Idle.none(WEIGHTS[0])
    before.neurons[0, 7] = True
    best = Passes([0.5], wasteful=False).spend(left=[before])
    assert np.flatnonzero(best.respent.neurons[0]).tolist() == [7]
