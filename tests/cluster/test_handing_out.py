"""Tasks are handed out so that no worker waits for nothing."""

import pytest
from crews import DATA, assert_alike, with_crew
from small_models import make_model, weights

from onnx_sipp import prune
from onnx_sipp.cluster import tasks
from onnx_sipp.cluster.alone import Alone

OPTIONS = {"sparsity": 0.6, "threads": 1, "batch_size": 8}


def test_the_largest_layers_are_looked_at_first(monkeypatch):
    seen = []

    class Seeing(Alone):
        def submit(self, function, *arguments):
            if function is tasks.look:
                seen.append(arguments[2])
            return super().submit(function, *arguments)

    monkeypatch.setattr("crews.Alone", Seeing)
    sizes = [(4, 3), (3, 9), (9, 2)]
    nodes = [("MatMul", "x a", "h"), ("MatMul", "h b", "g"), ("MatMul", "g c", "y")]
    made = {n: weights(*size, seed=i) for i, (n, size) in enumerate(zip("abc", sizes, strict=True))}
    with_crew(monkeypatch, prune, make_model(nodes, made, {"x": ["n", 4]}), DATA, **OPTIONS)
    assert seen[:3] == [1, 2, 0]


@pytest.mark.parametrize(("light", "count"), [(True, 2), (False, 3)])
def test_looks_that_bring_no_data_are_handed_out_as_workers_fall_free(monkeypatch, light, count):
    """So that none waits behind a long one while another worker has nothing to do."""
    out, most = [], []

    class Two(Alone):
        def submit(self, function, *arguments):
            task = super().submit(function, *arguments)
            if function is tasks.look:
                out.append(task)
                most.append(len(out))
            return task

        def has_room(self, running):
            return running < 2

        def as_done(self, given):
            for place in reversed(range(len(given))):
                if given[place] in out:
                    out.remove(given[place])
                yield place

    monkeypatch.setattr("crews.Alone", Two)
    monkeypatch.setattr("onnx_sipp.cluster.crew.is_light", lambda *_: light)
    nodes = [("MatMul", "x a", "h"), ("MatMul", "h b", "g"), ("MatMul", "g c", "y")]
    made = {name: weights(4, 4, seed=seed) for seed, name in enumerate("abc")}
    model = make_model(nodes, made, {"x": ["n", 4]})
    plain = prune(model, DATA, **OPTIONS)
    assert_alike(with_crew(monkeypatch, prune, model, DATA, **OPTIONS), plain)
    assert max(most) == count
    assert out == []
