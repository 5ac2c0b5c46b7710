"""A crew in this process: parted work gives what is done in one piece, up to rounding."""

import crews
import numpy as np
import pytest
from crews import DATA, IMAGES, assert_alike, convolutions, with_crew
from small_models import deep, make_model, mlp, weights

from onnx_sipp import calibrate, pipeline, prune, sweep
from onnx_sipp.calibration import runner
from onnx_sipp.calibration.multiplying import RuntimeMultiplier
from onnx_sipp.cluster import crew as crew_module
from onnx_sipp.cluster import tasks
from onnx_sipp.cluster.alone import Alone, _Value
from onnx_sipp.cluster.shards import is_quick
from onnx_sipp.cluster.site import Site
from onnx_sipp.cluster.tasks import merge_sums
from onnx_sipp.errors import SippError
from onnx_sipp.memory import Plan
from onnx_sipp.progress import Silent
from onnx_sipp.refitting.batches import BatchRange, UnevenError
from onnx_sipp.refitting.layer_sums import Sums
from onnx_sipp.statistics.gram import Gram

CASES = {"mlp": (mlp, DATA), "shared": (deep, DATA), "conv": (convolutions, IMAGES)}
OPTIONS = {"sparsity": 0.6, "threads": 1, "batch_size": 8}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rounds": 2},
        {"allocation": "impact"},
        {"method": "sipp-det"},
        {"method": "wanda", "compensate": "sequential"},
        {"sparsity": 0.9},
        {"pattern": "1x2"},
        {"threads": None},
    ],
    ids=str,
)
def test_it_is_as_in_one_process(monkeypatch, name, options):
    model, data = CASES[name]
    options = {**OPTIONS, **options}
    plain = prune(model(), data, **options)
    assert_alike(with_crew(monkeypatch, prune, model(), data, **options), plain)


@pytest.mark.parametrize("early", [False, True])
def test_workers_are_told_what_the_model_shows(monkeypatch, early):
    """And when they are told before statistics are measured, the rest with these."""
    told, known = [], []

    class Listening(Alone):
        def equip(self, payload):
            told.append(payload)
            super().equip(payload)

        def share(self, value):
            known.append(value)
            return super().share(value)

    monkeypatch.setattr(crews, "Alone", Listening)
    if early:
        monkeypatch.setattr("onnx_sipp.cluster.crew.is_quick", is_quick)
    with_crew(monkeypatch, prune, mlp(), DATA, **OPTIONS)
    (payload,), (statistics, *_) = told, known
    site, opened = Site(payload), []
    monkeypatch.setattr(runner, "open_session", lambda *given, **settings: opened.append(given))
    site.get_ready()
    site.refitter(statistics)
    assert site.prepared.patches == 1
    assert not opened


def test_who_waits_for_workers_meets_why_they_are_not_there(monkeypatch):
    monkeypatch.setattr("onnx_sipp.cluster.crew.is_quick", is_quick)

    def nobody():
        raise SippError("there are no workers")

    monkeypatch.setattr(crews, "Alone", nobody)
    with pytest.raises(SippError, match="no workers"):
        with_crew(monkeypatch, prune, mlp(), DATA, **OPTIONS)
    # Who needs none does not.
    with_crew(monkeypatch, prune, mlp(), DATA, **OPTIONS, method="sipp-det")


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 1), ({"allocation": "error"}, 1), ({"method": "sipp-det"}, 0)],
    ids=str,
)
def test_workers_are_told_early_only_of_what_they_will_do(monkeypatch, options, count):
    monkeypatch.setattr("onnx_sipp.cluster.crew.is_quick", is_quick)
    told = []
    monkeypatch.setattr(Alone, "equip", lambda pool, payload: told.append(payload))

    def stop(crew, *_):
        crew.close()
        raise InterruptedError

    monkeypatch.setattr(crew_module.Crew, "statistics", stop)
    with pytest.raises(InterruptedError):
        with_crew(monkeypatch, prune, mlp(), DATA, **OPTIONS, **options)
    assert len(told) == count


def test_what_was_done_by_the_crew(monkeypatch):
    done = []

    class Counting(crew_module.Crew):
        def statistics(self, *arguments):
            done.append("statistics")
            return super().statistics(*arguments)

        def survey(self, *arguments, alone):
            done.append(f"survey {len(arguments[1])} {alone}")
            found = super().survey(*arguments, alone=alone)
            assert found is not None
            return found

        def compare(self, *arguments):
            done.append("compare")
            return super().compare(*arguments)

    monkeypatch.setattr("crews.Crew", Counting)
    result = with_crew(monkeypatch, prune, deep(), DATA, **{**OPTIONS, "sparsity": 0.8})
    assert done[:3] == ["statistics", "survey 3 True", "compare"]
    assert set(result.report.budgets) == {"error", "impact", "mild-impact"}


def test_thinned_patches_are_the_same(monkeypatch):
    monkeypatch.setattr("onnx_sipp.unfolding.thinning.PRODUCTS", 1)
    monkeypatch.setattr("onnx_sipp.unfolding.thinning.PATCHES_PER_INPUT", 3)
    plain = prune(convolutions(), IMAGES, **OPTIONS)
    assert_alike(with_crew(monkeypatch, prune, convolutions(), IMAGES, **OPTIONS), plain)


def test_products_elsewhere_are_shared_too(monkeypatch):
    products = []

    class Counting(RuntimeMultiplier):
        def product(self, *arguments, **options):
            products.append(options)
            return super().product(*arguments, **options)

    proto = make_model([("Gemm", "x a", "y")], {"a": weights(260, 5)}, inputs={"x": ["n", 260]})
    data = weights(80, 260, seed=5)
    plain = prune(proto, data, **OPTIONS)
    monkeypatch.setattr(
        "onnx_sipp.refitting.refitter.multiplier_for", lambda _: Counting("CPUExecutionProvider")
    )
    assert_alike(with_crew(monkeypatch, prune, proto, data, **OPTIONS), plain)
    assert products


def test_samples_of_several_lengths_are_surveyed_in_one_piece(monkeypatch):
    proto = make_model(
        [("MatMul", "x a", "h"), ("Relu", "h", "r"), ("MatMul", "r z", "y")],
        {"a": weights(4, 6), "z": weights(6, 3, seed=1)},
        inputs={"x": ["n", "t", 4]},
    )
    feeds = [{"x": weights(1, 2 + n % 3, 4, seed=n)} for n in range(40)]
    plain = prune(proto, feeds, **OPTIONS)
    assert_alike(with_crew(monkeypatch, prune, proto, feeds, **OPTIONS), plain)


@pytest.mark.parametrize("options", [{}, {"method": "sipp-det"}, {"rounds": 2}], ids=str)
def test_weights_in_blocks(monkeypatch, made, options):
    """They have one budget, and the pass by it is made here."""
    monkeypatch.setattr(Plan, "within", classmethod(lambda cls, *_: cls(16, 1)))
    monkeypatch.setattr("onnx_sipp.weights.JURY_SIZE", 4)
    plain = prune(mlp(), DATA, **OPTIONS, **options)
    assert_alike(with_crew(monkeypatch, prune, mlp(), DATA, **OPTIONS, **options), plain)
    assert "statistics" in made
    assert not {"trial", "careful"} & set(made)


@pytest.fixture
def made(monkeypatch):
    """What workers did."""
    names = []

    class Counting(Alone):
        def submit(self, function, *arguments):
            names.append(function.__name__)
            return super().submit(function, *arguments)

        def equip(self, payload):
            names.append("equipped")
            super().equip(payload)

    monkeypatch.setattr("crews.Alone", Counting)
    return names


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("options", [{}, {"sparsity": 0.9}, {"pattern": "1x2"}], ids=str)
def test_light_work_is_shared_without_what_it_takes_longer_to_send(
    monkeypatch, made, name, options
):
    """Statistics are measured here, and whoever looks at a layer gathers its sums."""
    monkeypatch.setattr("onnx_sipp.cluster.crew.is_light", lambda *_: True)
    model, data = CASES[name]
    options = {**OPTIONS, **options}
    plain = prune(model(), data, **options)
    assert_alike(with_crew(monkeypatch, prune, model(), data, **options), plain)
    assert "trial" in made
    assert "look" in made
    assert made.count("equipped") == 1
    # Layers that share a weight have their sums added up, always in the same order.
    assert ({"statistics", "sums", "merge_sums"} & set(made) == set()) == (name != "shared")


def test_statistics_that_are_quick_are_measured_before_workers_are_there(monkeypatch, made):
    monkeypatch.setattr("onnx_sipp.cluster.crew.is_quick", is_quick)
    plain = prune(mlp(), DATA, **OPTIONS)
    assert_alike(with_crew(monkeypatch, prune, mlp(), DATA, **OPTIONS), plain)
    assert made[:2] == ["equipped", "sums"]
    assert "statistics" not in made


@pytest.mark.parametrize("options", [{"allocation": "error"}, {"method": "sipp-det"}], ids=str)
def test_light_work_without_trials_is_all_done_here(monkeypatch, made, options):
    monkeypatch.setattr("onnx_sipp.cluster.crew.is_light", lambda *_: True)
    plain = prune(mlp(), DATA, **OPTIONS, **options)
    assert_alike(with_crew(monkeypatch, prune, mlp(), DATA, **OPTIONS, **options), plain)
    assert made == []


def test_padding(monkeypatch):
    proto = make_model(
        [("MatMul", "x a", "h"), ("Relu", "h", "r"), ("MatMul", "r z", "o"),
         ("Mul", "o m", "y")],
        {"a": weights(4, 6), "z": weights(6, 3, seed=1)},
        inputs={"x": ["n", 5, 4], "m": ["n", 5, 1]},
    )  # fmt: skip
    mask = (np.arange(5)[None] < np.arange(40)[:, None] % 5 + 1).astype(np.float32)
    data = {"x": weights(40, 5, 4, seed=2), "m": mask[..., None]}
    plain = prune(proto, data, **OPTIONS)
    assert_alike(with_crew(monkeypatch, prune, proto, data, **OPTIONS), plain)


def test_large_models_are_calibrated_by_the_crew_alone(monkeypatch):
    def no_pass(*arguments):
        raise AssertionError("every worker would hold the statistics")

    monkeypatch.setattr("onnx_sipp.cluster.crew.is_large", lambda model: True)
    monkeypatch.setattr(crew_module.Crew, "compare", no_pass)
    plain = prune(deep(), DATA, **OPTIONS)
    assert_alike(with_crew(monkeypatch, prune, deep(), DATA, **OPTIONS), plain)


def test_external_data_stays_where_it_is(monkeypatch, tmp_path):
    import onnx

    path = tmp_path / "in.onnx"
    onnx.save(deep(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    plain = prune(path, DATA, **OPTIONS)
    assert_alike(with_crew(monkeypatch, prune, path, DATA, **OPTIONS), plain)


def test_calibrate_and_sweep(monkeypatch, tmp_path):
    calibrate(deep(), DATA, method="wanda").save(tmp_path / "a.npz")
    made = with_crew(monkeypatch, calibrate, deep(), DATA, method="wanda")
    made.save(tmp_path / "b.npz")
    with np.load(tmp_path / "a.npz") as one, np.load(tmp_path / "b.npz") as other:
        assert one.files == other.files
        for name in one.files:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-5)
    options = {"sparsities": [0.4, 0.8], "threads": 1}
    plain = sweep(deep(), DATA, **options).points
    for a, b in zip(with_crew(monkeypatch, sweep, deep(), DATA, **options).points, plain,
                    strict=True):  # fmt: skip
        assert a.relative_error == pytest.approx(b.relative_error, rel=0.02)


def test_a_run_goes_on_with_a_crew_but_not_without(monkeypatch, tmp_path):
    class Stop(Exception):  # noqa: N818
        pass

    class Stages:
        def __init__(self, last=""):
            self.last, self.seen = last, []

        def stage(self, name):
            if name == self.last:
                raise Stop
            self.seen.append(name)

        def advance(self, amount, total):
            pass

    options = {**OPTIONS, "workdir": tmp_path}
    whole = with_crew(monkeypatch, prune, deep(), DATA, **OPTIONS)
    with pytest.raises(Stop):
        with_crew(monkeypatch, prune, deep(), DATA, progress=Stages("comparing budgets"), **options)
    with pytest.raises(pipeline.UsageError, match="scheduler false instead of true"):
        prune(deep(), DATA, **options)
    rest = Stages()
    again = with_crew(monkeypatch, prune, deep(), DATA, progress=rest, **options)
    assert "calibrating" not in rest.seen
    assert again.model.SerializeToString() == whole.model.SerializeToString()


# --- pieces --------------------------------------------------------------------------------------


def test_merging_sums_changes_neither():
    parts, rng = [], np.random.default_rng(0)
    for _ in range(2):
        sums = Sums.empty((1, 2, 3))
        sums.gram = Gram(1, 3)
        columns = rng.standard_normal((1, 3, 5)).astype(np.float32)
        sums.gram.update(columns)
        sums.cross.update(columns, rng.standard_normal((1, 2, 5)).astype(np.float32))
        parts.append([sums])
    before = [part[0].gram.products.copy() for part in parts]
    (made,) = merge_sums(None, *parts)
    np.testing.assert_array_equal(made.gram.products, before[0] + before[1])
    assert made.gram.count == 10
    for part, old in zip(parts, before, strict=True):
        np.testing.assert_array_equal(part[0].gram.products, old)
        assert part[0].gram.count == 5


def test_patches_of_other_batches():
    sizes = [4, 4, 3, 2, 2]
    assert BatchRange(1, sizes).every([36, 27]) == [36, 36, 27, 18, 18]
    for counts in ([36, 28], [35, 27], [36, 18]):
        with pytest.raises(UnevenError):
            BatchRange(1, sizes).every(counts)


@pytest.mark.parametrize("room", [True, False])
@pytest.mark.parametrize("last", ["error", "impact", "mild-impact"])
def test_the_best_budget_wins_whichever_is_tried_last(monkeypatch, room, last):
    """A pass that was begun in vain is given up."""
    made, given_up = [], []

    class Pool(Alone):
        def has_room(self, running):
            return room

        def share(self, value):
            return value

        def submit(self, function, *arguments):
            made.append((function.__name__, arguments[-1]))
            value = ERRORS[arguments[-1]]
            return _Value(value if function.__name__ == "trial" else (arguments[-1], {}))

        def give_up(self, task):
            given_up.append(task.value[0])

        def as_done(self, tasks):
            first = [n for n, task in enumerate(tasks) if task.value != ERRORS[last]]
            yield from first
            made.append(("the last", ""))
            yield from (n for n in range(len(tasks)) if n not in first)

    class Form:
        def outcome(self, header, read):
            return header

    ERRORS = {"error": 0.3, "impact": 0.2, "mild-impact": 0.1}
    crew = crew_module.Crew(Pool)
    monkeypatch.setattr(crew, "_seen", object())
    errors, outcome = crew.compare(None, list(ERRORS), Form(), Silent())
    assert errors == ERRORS
    assert list(errors) == list(ERRORS)
    assert outcome == "mild-impact"
    careful = [plan for name, plan in made if name == "careful"]
    assert careful[-1] == "mild-impact"
    assert given_up == careful[:-1]
    assert (len(careful) > 1) == (room and last == "mild-impact")
    kinds = [kind for kind, _ in made]
    early = kinds.index("careful") < kinds.index("the last")
    assert early == room


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_what_is_likely_to_do_best_is_tried_first(monkeypatch, name):
    tried = []

    class Seeing(Alone):
        def submit(self, function, *arguments):
            if function is tasks.trial:
                tried.append(arguments[-1])
            return super().submit(function, *arguments)

    monkeypatch.setattr("crews.Alone", Seeing)
    model, data = CASES[name]
    with_crew(monkeypatch, prune, model(), data, **OPTIONS)
    assert tried == ["mild-impact", "impact", "error"]


def test_of_equal_budgets_the_first_wins(monkeypatch):
    class Pool(Alone):
        def share(self, value):
            return value

        def submit(self, function, *arguments):
            return _Value(0.1 if function.__name__ == "trial" else (arguments[-1], {}))

    class Form:
        def outcome(self, header, read):
            return header

    crew = crew_module.Crew(Pool)
    monkeypatch.setattr(crew, "_seen", object())
    plans = ["error", "impact", "mild-impact"]
    assert crew.compare(None, plans, Form(), Silent())[1] == "error"
