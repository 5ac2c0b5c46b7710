"""Workers of one machine that have nothing to do lend their core."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from crews import IMAGES, convolutions
from lenders import Lending

from onnx_sipp import prune, threads
from onnx_sipp.cluster import seat as seat_module
from onnx_sipp.cluster.seat import Seat

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs flock")


@pytest.fixture(autouse=True)
def cores(monkeypatch):
    """A machine with so many cores."""
    monkeypatch.setattr(seat_module, "available_threads", lambda: 4)


@pytest.fixture
def seats(tmp_path):
    """Three workers."""
    return [seat(tmp_path, number) for number in range(3)]


def seat(path, number, scheduler="tcp-host-1"):
    folder = path / f"worker-{number}"
    folder.mkdir()
    return Seat(folder, scheduler)


def lent(seat, most=9, threads=1):
    with seat.lent(most, threads) as count:
        return count


def test_those_that_wait_lend(seats):
    first, second, _ = seats
    with first.in_use():
        assert lent(first) == 2
        with second.in_use():
            assert lent(first) == 1
            assert lent(second) == 1
        assert lent(first) == 2


def test_no_more_than_is_of_use(seats):
    with seats[0].in_use():
        assert [lent(seats[0], most) for most in (0, 1, 2, 3)] == [0, 1, 2, 2]


def test_what_is_not_of_use_is_left_to_others(seats):
    first, second, _ = seats
    with first.in_use(), second.in_use(), first.lent(0, 1), first.lent(1, 1) as count:
        assert (count, lent(second)) == (1, 0)
    with first.in_use(), first.lent(1, 1) as count:
        assert (count, lent(second, 1)) == (1, 1)


def test_nothing_is_held_that_the_machine_does_not_have(monkeypatch, seats):
    first, second, _ = seats
    monkeypatch.setattr(seat_module, "available_threads", lambda: 2)
    with first.in_use(), second.in_use(), first.lent(9, 1) as count:
        assert count == 0
        monkeypatch.setattr(seat_module, "available_threads", lambda: 3)
        assert lent(second) == 1


def test_what_is_lent_is_lent_once(seats):
    first, second, _ = seats
    with first.in_use(), second.in_use(), first.lent(9, 1) as count:
        assert count == 1
        assert lent(second) == 0


@pytest.mark.parametrize(("available", "count"), [(1, 0), (2, 1), (3, 2), (8, 2)])
def test_no_more_than_the_machine_has(monkeypatch, seats, available, count):
    monkeypatch.setattr(seat_module, "available_threads", lambda: available)
    with seats[0].in_use():
        assert lent(seats[0]) == count


@pytest.mark.parametrize(("available", "count"), [(2, 0), (3, 1), (8, 4)])
def test_workers_of_several_threads_lend_them_all(monkeypatch, seats, available, count):
    monkeypatch.setattr(seat_module, "available_threads", lambda: available)
    with seats[0].in_use():
        assert lent(seats[0], threads=2) == count


def test_one_that_gets_to_work_waits_for_its_core(seats):
    first, second, _ = seats
    began, done = threading.Event(), threading.Event()

    def work():
        began.set()
        with second.in_use():
            done.set()

    with first.in_use(), first.lent(9, 1):
        thread = threading.Thread(target=work)
        thread.start()
        assert began.wait(10)
        assert not done.wait(0.2)
    assert done.wait(10)
    thread.join()


def test_it_does_not_wait_for_ever(monkeypatch, seats):
    monkeypatch.setattr(seat_module, "_PATIENCE", 0.1)
    first, second, _ = seats
    with first.in_use(), first.lent(9, 1), second.in_use():
        pass


def test_a_worker_without_files_works_on(seats):
    shutil.rmtree(seats[1]._folder)
    with seats[1].in_use():
        assert lent(seats[0]) == 1


def test_one_that_lost_its_core_lends_nothing(seats):
    seats[1]._core(seats[1]._folder).unlink()
    with seats[0].in_use():
        assert lent(seats[0]) == 1


def test_no_descriptor_is_left_open(seats):
    before = len(list(Path("/dev/fd").iterdir()))
    with seats[0].in_use(), seats[0].lent(1, 1):
        lent(seats[1])
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_threads_of_one_worker_do_not_wait_for_each_other(seats):
    with seats[0].in_use(), seats[0].in_use():
        assert lent(seats[1]) == 1


def test_the_dead_lend_nothing(tmp_path):
    code = "import sys; from pathlib import Path; from onnx_sipp.cluster.seat import Seat;"
    code += "seat = Seat(Path(sys.argv[1]), 'tcp-host-1')"
    (tmp_path / "dead").mkdir()
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "dead")], check=True)
    assert len(list((tmp_path / "dead").iterdir())) == 2
    first = seat(tmp_path, 1)
    with first.in_use():
        assert lent(first) == 0
        seat(tmp_path, 2)
        assert lent(first) == 1


def test_those_who_leave_lend_nothing(seats, monkeypatch):
    with seats[0].in_use():
        seats[1].leave()
        assert lent(seats[0]) == 1
        folder = seats[2]._folder
        find = Path.glob

        def vanishing(path, pattern):
            found = list(find(path, pattern))
            shutil.rmtree(folder)
            return found

        monkeypatch.setattr(Path, "glob", vanishing)
        assert lent(seats[0]) == 0


def test_workers_of_other_schedulers_lend_nothing(tmp_path):
    first = seat(tmp_path, 1)
    seat(tmp_path, 2, "tcp-host-2")
    with first.in_use():
        assert lent(first) == 0


def test_no_links_are_followed(tmp_path):
    (tmp_path / "tcp-host-1.taken").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match=r"tcp-host-1\.taken"):
        Seat(tmp_path, "tcp-host-1")
    assert not (tmp_path / "target").exists()


def test_what_is_lent_changes_no_byte(monkeypatch):
    made = []
    for count in (0, 1, 3):
        lender = Lending(count)
        monkeypatch.setattr(threads, "_lenders", [lender])
        result = prune(convolutions(), IMAGES, sparsity=0.6, threads=1, batch_size=8)
        assert lender.asked
        made.append(result.model.SerializeToString())
    assert made[0] == made[1] == made[2]
