"""One level of threads."""

import os
import subprocess
import sys
import threading
import time

import pytest
from lenders import Lending
from small_models import make_model, weights

from onnx_sipp import calibrate, prune, sweep
from onnx_sipp import threads as threads_module
from onnx_sipp.threads import (
    _controller,
    blas_threads,
    borrow_from,
    borrow_no_more,
    borrows,
    hands,
    side_by_side,
    turns,
)


def blas_counts():
    """Threads of numpy's BLAS; whatever a test loads later, scipy's for one, is not limited."""
    return {entry["num_threads"] for entry in _controller().info() if entry["user_api"] == "blas"}


@pytest.mark.parametrize("threads", [1, 2, 9])
def test_results_come_in_order(threads):
    assert side_by_side(lambda n: n * n, range(7), threads) == [n * n for n in range(7)]


@pytest.mark.parametrize("threads", [1, 2])
def test_nothing_to_do(threads):
    assert side_by_side(str, [], threads) == []


def test_items_may_be_an_iterator():
    assert side_by_side(str, iter("ab"), 2) == ["a", "b"]


def test_two_at_a_time():
    barrier = threading.Barrier(2, timeout=10)
    assert len(side_by_side(lambda _: barrier.wait(), range(2), 2)) == 2


def test_one_thread_stays_on_this_one():
    assert set(side_by_side(lambda _: threading.get_ident(), range(3), 1)) == {
        threading.get_ident()
    }


@pytest.mark.parametrize("threads", [1, 2])
def test_products_inside_have_one_thread(threads):
    before = blas_counts()
    assert side_by_side(lambda _: blas_counts(), range(2), threads) == [{1}, {1}]
    assert blas_counts() == before


def test_errors_come_through_and_the_limit_goes():
    before = blas_counts()
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda n: 1 // n, [1, 0], 2)
    assert blas_counts() == before


def test_blas_threads():
    with blas_threads(1):
        assert blas_counts() == {1}


@pytest.fixture
def lender(monkeypatch):
    """A lender of one thread."""
    monkeypatch.setattr(threads_module, "_lenders", [])
    made = Lending(1)
    borrow_from(made)
    return made


def test_borrowed_threads_are_used(lender):
    barrier = threading.Barrier(2, timeout=10)
    assert len(side_by_side(lambda _: barrier.wait(), range(2), 1)) == 2
    assert lender.asked == [(1, 1)]
    assert lender.out == 0


def test_no_more_are_borrowed_than_are_of_use(lender):
    side_by_side(str, range(2), 2)
    side_by_side(str, [0], 1)
    side_by_side(str, [], 1)
    assert lender.asked == [(0, 2), (0, 1)]
    side_by_side(str, range(7), 2)
    assert lender.asked[2:] == [(5, 2)]


def test_a_thread_that_becomes_free_is_used_for_what_is_left(lender):
    lender.count = 0
    barrier, used = threading.Barrier(2, timeout=10), []

    def work(item):
        used.append(threading.get_ident())
        if item == 1:
            lender.count = 1
        if item > 1:
            barrier.wait()
        return item

    assert side_by_side(work, range(6), 1) == [0, 1, 2, 3, 4, 5]
    assert set(used[:2]) == {threading.get_ident()}
    assert threading.get_ident() not in used[2:]
    assert lender.out == 0


def test_the_last_lender_counts(lender):
    borrow_from(other := Lending(0))
    assert side_by_side(str, range(3), 1) == ["0", "1", "2"]
    asked = [(2, 1), (1, 1), (0, 1)]  # again after every item
    assert (lender.asked, other.asked) == ([], asked)
    assert (lender.left, other.left) == (True, False)
    borrow_no_more()
    side_by_side(str, range(3), 1)
    assert (lender.asked, other.asked) == ([], asked)
    assert other.left
    assert not borrows()


@pytest.mark.parametrize(
    ("count", "threads", "parts"),
    [
        (5, 1, [[0, 2, 4], [1, 3]]),
        (5, 2, [[0, 2, 4], [1, 3]]),
        (5, 3, [[0, 3], [1, 4], [2]]),
        (2, 3, [[0], [1]]),
        (1, 1, [[0]]),
        (0, 2, []),
    ],
)
def test_turns(count, threads, parts):
    assert [list(part) for part in turns(range(count), threads)] == parts


class Watching:
    """Notes how many threads products have at every stage of a run."""

    def __init__(self):
        self.seen = set()

    def stage(self, name):
        del name
        self.seen |= blas_counts()

    def advance(self, done, total):
        del done, total
        self.seen |= blas_counts()


RUNS = {
    "prune": lambda *given, **options: prune(*given, sparsity=0.5, **options),
    "sweep": lambda *given, **options: sweep(*given, sparsities=[0.5], **options),
    "calibrate": calibrate,
}


@pytest.mark.parametrize("name", RUNS)
def test_products_of_a_run_have_one_thread_where_they_are_not_parted(name):
    """Small ones gain nothing by more, and on a busy machine they lose a lot."""
    proto = make_model([("MatMul", "x a", "y")], {"a": weights(6, 5)}, inputs={"x": ["n", 6]})
    progress = Watching()
    with blas_threads(2):
        RUNS[name](proto, weights(40, 6), threads=2, progress=progress)
        assert blas_counts() == {2}
    assert progress.seen == {1}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cannot be bound to a core here")
def test_threads_by_default_are_the_cores_that_the_process_may_use():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from onnx_sipp.options import available_threads; print(available_threads())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(found.stdout) == 1


def test_threads_have_no_threads_of_their_own_while_all_work():
    """Whoever lends; but the next ones do."""
    both = threading.Barrier(2, timeout=10)

    def inner(_):
        both.wait()
        with hands(3, 3) as crew:
            both.wait()
            return crew.count, set(crew.map(lambda _: threading.get_ident(), range(3)))

    with hands(2, 2) as crew:
        found = list(crew.map(inner, range(2)))
    assert [count for count, _ in found] == [1, 1]
    assert all(threading.get_ident() not in used for _, used in found)
    with hands(3, 3) as crew:
        assert crew.count == 3


def test_a_thread_has_those_that_ran_out_of_work():
    meet = threading.Barrier(2, timeout=10)

    def work(place):
        deadline = time.monotonic() + 10
        while place == 0 and time.monotonic() < deadline:
            with hands(3, 1) as crew:
                if crew.count == 2:
                    return len(list(crew.map(lambda _: meet.wait(), range(2))))
        return 0

    with hands(2, 2) as crew:
        for _ in range(2):  # what is lent comes back
            assert list(crew.map(work, range(2))) == [2, 0]


def test_an_error_stops_the_others():
    began = []

    def work(place):
        began.append(place)
        if place == 0:
            raise ValueError("no")
        time.sleep(0.01)

    with pytest.raises(ValueError, match="no"):
        side_by_side(work, range(1000), 2)
    ended = len(began)
    time.sleep(0.05)
    assert len(began) == ended < 1000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_threads_are_made_anew_in_a_fork():
    code = (
        "import os; from onnx_sipp.threads import side_by_side;"
        "side_by_side(str, [1, 2], 2);"
        "child = os.fork();"
        "child or os._exit(side_by_side(str, [1, 2], 2) != ['1', '2']);"
        "print(os.waitpid(child, 0)[1])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout == "0\n"
