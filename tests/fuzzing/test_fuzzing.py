"""Inputs that once were findings stay mended, and a short run finds nothing new."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from fuzzing.mutations import mutated
from fuzzing.seeds import REGRESSIONS, regressions, seeds
from fuzzing.targets import TARGETS, fed

KEPT = [(name, path) for name in TARGETS for path in regressions(name)]
RUNS = {"model": 60}


@pytest.mark.parametrize(("name", "path"), KEPT, ids=lambda value: getattr(value, "name", value))
def test_regressions(name, path):
    fed(TARGETS[name], path.read_bytes())


def test_every_regression_is_of_a_target():
    assert {path.name for path in REGRESSIONS.iterdir()} <= set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_taken(name):
    for data in seeds(name):
        assert fed(TARGETS[name], data)


@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run(name):
    rng, start = random.Random(name), seeds(name)
    refused = 0
    for _ in range(RUNS.get(name, 300)):
        refused += not fed(TARGETS[name], mutated(name, rng.choice(start), rng))
    assert refused  # or nothing was changed
