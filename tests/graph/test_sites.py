"""Every place of a message that holds elements is read and written."""

import numpy as np
import pytest
from onnx import helper
from small_models import constant, make_model, mlp, save_external, weights

from onnx_sipp.graph.model import Model


def everywhere():
    """A model with constants in a graph, in a subgraph, in a function, and as plain numbers."""
    body = make_model(
        [("MatMul", "x inside", "z"), constant("k", weights(2)), ("Add", "z k", "y")],
        {"inside": weights(4, 2)},
    ).graph
    del body.input[:]
    numbers = helper.make_node("Constant", [], ["n"], value_floats=[1.0, 2.0])
    function = helper.make_function(
        "f", "F", ["a"], ["b"],
        [constant("own", weights(2)), helper.make_node("Add", ["a", "own"], ["b"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    return make_model(
        [
            numbers,
            helper.make_node("If", ["c"], ["h"], then_branch=body, else_branch=body),
            ("Add", "h n", "i"),
            helper.make_node("F", ["i"], ["y"], domain="f"),
        ],
        {"c": np.array(True), "w": weights(4, 6)},
        functions=[function],
        domains=["f"],
    )


@pytest.mark.parametrize("external", [False, True])
def test_sites(tmp_path, external):
    """Constants anywhere, by number; the same in every copy."""
    if external:
        model = Model.load(save_external(everywhere(), tmp_path / "m.onnx"))
        assert len(model.sites.external) == 4
    else:
        model = Model.load(everywhere())
    shapes = [model.sites.read(site).shape for site in range(len(model.sites.holders))]
    assert sorted(shapes) == sorted([(), (4, 6), (2,), (4, 2), (2,), (4, 2), (2,), (2,)])
    assert model.sites.named("w") == shapes.index((4, 6))
    copy = model.copy()
    for site in range(len(shapes)):
        copy.sites.put(site, np.zeros_like(model.sites.read(site)))
    assert all(not copy.sites.read(site).any() for site in range(len(shapes)))
    assert all(model.sites.read(site).any() for site in range(len(shapes)))
    copy.save(tmp_path / "saved.onnx")
    for again in (Model.load(tmp_path / "saved.onnx"), Model.load(copy.inlined()), copy.copy()):
        assert [again.sites.read(site).shape for site in range(len(shapes))] == shapes
        assert all(not again.sites.read(site).any() for site in range(len(shapes)))


def test_what_is_made_of_elements_is_kept_until_there_are_others():
    model = Model(mlp())
    name = next(iter(model.stored))

    def made(of):
        return of.derived(name, "twice", lambda: 2 * of.read(name))

    first = made(model)
    assert made(model) is first
    copy = model.copy()
    assert made(copy) is first
    copy.replace(name, model.read(name) + 1)
    np.testing.assert_array_equal(made(copy), 2 * (model.read(name) + 1))
    assert made(model) is first
    model.sites.let_go()
    assert made(model) is not first
    np.testing.assert_array_equal(made(model), first)
