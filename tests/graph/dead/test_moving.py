"""Dead paths through operators that move elements about."""

import numpy as np
import pytest
from dead_checks import CONSTANT, UNREAD, chain, check, constants, facts_of, unread
from small_models import make_model, weights

DEAD = {*CONSTANT, UNREAD}


def ints(*values):
    return np.array(values, np.int64)


FLAT = {
    "Flatten": ([("Flatten", "h", "m")], {}),
    "Reshape": ([("Reshape", "h s", "m")], {"s": ints(0, -1)}),
    "Reshape, batch open": ([("Reshape", "h s", "m")], {"s": ints(-1, 96)}),
    "Reshape by computed shape": (
        [
            ("Shape", "h", "all"),
            ("Gather", "all zero", "first"),
            ("Unsqueeze", "first axis", "batch"),
            ("Concat", "batch rest", "s", {"axis": 0}),
            ("Reshape", "h s", "m"),
        ],
        {"zero": np.int64(0), "axis": ints(0), "rest": ints(-1)},
    ),
}


@pytest.mark.parametrize("name", FLAT)
def test_flattening(name):
    middle, values = FLAT[name]
    facts = check(chain(middle, values, dense=True, per_channel=16))
    assert unread(facts["made"]) == DEAD
    assert constants(facts["reader"]) == {
        16 * channel + place: value for channel, value in CONSTANT.items() for place in range(16)
    }


def test_to_channels_last_and_back():
    middle = [
        ("Transpose", "h", "a", {"perm": [0, 2, 3, 1]}),
        ("MatMul", "a u", "e", {"name": "inner"}),
        ("Relu", "e", "g"),
        ("Transpose", "g", "m", {"perm": [0, 3, 1, 2]}),
    ]
    inner = weights(6, 6)
    inner[UNREAD] = inner[:, 3] = 0
    facts = check(chain(middle, {"u": inner}))
    # The MatMul has no bias, so that neurons of the Conv which are constant and not zero stay.
    assert unread(facts["made"]) == {UNREAD}
    assert constants(facts["inner"]) == CONSTANT
    assert unread(facts["inner"]) == {3, UNREAD}
    assert constants(facts["reader"]) == {3: 0.0}


SLICES = {
    "Slice": ([("Slice", "h one five one", "m")], {"one": ints(1), "five": ints(5)}, [1, 2, 3, 4]),
    "Gather": ([("Gather", "h i", "m", {"axis": 1})], {"i": ints(4, 4, 1, 0)}, [4, 4, 1, 0]),
    "Split": ([("Split", "h i", "rest m", {"axis": 1})], {"i": ints(2, 4)}, [2, 3, 4, 5]),
    "Split in thirds": (
        [("Split", "h", "p q r", {"axis": 1}), ("Concat", "r p", "m", {"axis": 1})],
        {},
        [4, 5, 0, 1],
    ),
    "shuffle": (
        [
            ("Reshape", "h i", "p"),
            ("Transpose", "p", "q", {"perm": [0, 2, 1, 3, 4]}),
            ("Reshape", "q o", "r"),
            ("Slice", "r zero four one", "m"),
        ],
        {"i": ints(0, 2, 3, 4, 4), "o": ints(0, 6, 4, 4),
         "zero": ints(0), "four": ints(4), "one": ints(1)},
        [0, 3, 1, 4],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SLICES)
def test_some_of_the_channels(name):
    middle, values, taken = SLICES[name]
    facts = check(chain(middle, values, inputs=len(taken), skips=()))
    assert unread(facts["made"]) == set(range(6)) - set(taken) | set(CONSTANT)
    expected = {place: CONSTANT[c] for place, c in enumerate(taken) if c in CONSTANT}
    assert constants(facts["reader"]) == expected


def test_concatenation():
    middle = [
        ("Conv", "x u d", "g", {"name": "side", "pads": [1, 1, 1, 1]}),
        ("Concat", "g h h", "m", {"axis": 1}),
    ]
    side = weights(2, 3, 3, 3, seed=2)
    side[0] = 0
    facts = check(
        chain(middle, {"u": side, "d": weights(2)}, inputs=14, skips=(1, 6, 12)),
    )
    assert unread(facts["side"]) == {0, 1}
    assert unread(facts["made"]) == DEAD
    assert set(constants(facts["reader"])) == {0, 3, 4, 9, 10}


def test_concatenation_along_another_axis():
    facts = check(chain([("Relu", "h", "r"), ("Concat", "h r", "m", {"axis": 2})]))
    assert unread(facts["made"]) == {2, UNREAD}
    assert constants(facts["reader"]) == {2: 0.75}


def test_halves_whose_bounds_the_graph_computes():
    """Shape inference leaves their number of channels open, but the facts know it."""
    middle = [
        ("Shape", "h", "all"),
        ("Gather", "all one", "channels"),
        ("Div", "channels two", "half"),
        ("Slice", "h zero half one", "front"),
        ("Slice", "h half channels one", "back"),
        ("Relu", "back", "r"),
        ("Concat", "r front", "m", {"axis": 1}),
    ]
    numbers = {"zero": ints(0), "one": ints(1), "two": ints(2)}
    facts = check(chain(middle, numbers, skips=()))
    assert unread(facts["made"]) == set(CONSTANT)
    assert constants(facts["reader"]) == {4: CONSTANT[1], 5: CONSTANT[2]}


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_the_mean_of_equal_elements(op, keepdims):
    middle = [(op, "h", "m", {"axes": [2, 3], "keepdims": keepdims})]
    facts = check(chain(middle, dense=not keepdims))
    assert unread(facts["made"]) == DEAD
    assert constants(facts["reader"]) == pytest.approx(CONSTANT)


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceMax", "ReduceMin"])
def test_what_mixes_channels_is_not_known(op):
    proto = chain([(op, "h", "m", {"axes": [1]})], inputs=1, skips=())
    facts = facts_of(proto)
    assert unread(facts["made"]) == set()
    assert constants(facts["reader"]) == {}


def test_lengths_that_depend_on_the_batch_are_not_known():
    # Which channel stands where depends on the size of the batch.
    facts = facts_of(chain([("Reshape", "h s", "m")], {"s": ints(-1, 8, 4, 3)}, inputs=8, skips=()))
    assert unread(facts["made"]) == set()


def test_values_of_attention():
    """A column of V that no row of the output projection reads; Q and K are read whole."""
    nodes = [
        *(("MatMul", f"x w{n}", f"{n}0", {"name": n}) for n in "qkv"),
        ("Add", "v0 vb", "v1"),
        *(("Reshape", f"{n} s", f"{n}s") for n in ("q0", "k0", "v1")),
        ("Transpose", "q0s", "qt", {"perm": [0, 2, 1, 3]}),
        ("Transpose", "k0s", "kt", {"perm": [0, 2, 3, 1]}),
        ("Transpose", "v1s", "vt", {"perm": [0, 2, 1, 3]}),
        ("MatMul", "qt kt", "scores"),
        ("Softmax", "scores", "share", {"axis": -1}),
        ("MatMul", "share vt", "mixed"),
        ("Transpose", "mixed", "back", {"perm": [0, 2, 1, 3]}),
        ("Reshape", "back o", "flat"),
        ("MatMul", "flat wo", "y", {"name": "out"}),
    ]
    shape = {"s": ints(0, 0, 2, 3), "o": ints(0, 0, 6)}
    values = {f"w{n}": weights(6, 6, seed=place) for place, n in enumerate("qkvo")}
    bias = weights(6)
    values["wo"][5] = 0
    values["wv"][:, 2] = bias[2] = 0
    facts = check(
        make_model(nodes, {**values, **shape, "vb": bias}, {"x": ["n", "t", 6]}),
        weights(2, 5, 6),
    )
    assert unread(facts["v"]) == {2, 5}
    assert unread(facts["q"]) == unread(facts["k"]) == set()
    assert constants(facts["out"]) == {2: 0.0}
