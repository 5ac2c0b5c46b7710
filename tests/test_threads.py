"""One level of threads."""

import threading

import pytest
from lenders import Lending

from onnx_sipp import threads as threads_module
from onnx_sipp.threads import (
    _controller,
    blas_threads,
    borrow_from,
    borrow_no_more,
    borrows,
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
    assert lender.asked == [(0, 2), (0, 1), (0, 1)]
    side_by_side(str, range(7), 2)
    assert lender.asked[3:] == [(5, 2)]


def test_the_last_lender_counts(lender):
    borrow_from(other := Lending(0))
    side_by_side(str, range(3), 1)
    assert (lender.asked, other.asked) == ([], [(2, 1)])
    assert (lender.left, other.left) == (True, False)
    borrow_no_more()
    side_by_side(str, range(3), 1)
    assert (lender.asked, other.asked) == ([], [(2, 1)])
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
