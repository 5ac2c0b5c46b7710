"""Whether freed memory is kept or given back."""

import os
import subprocess
import sys

import pytest

from onnx_sipp import allocator
from onnx_sipp.allocator import freed_memory_kept, release_memory


def test_memory_is_given_back(monkeypatch):
    much = 1 << 30
    release_memory(much)
    trimmed = []
    monkeypatch.setattr(allocator, "_of_glibc", {"malloc_trim": trimmed.append}.get)
    release_memory(1 << 20)
    assert trimmed == []
    release_memory(much)
    assert trimmed == [0]
    monkeypatch.setattr(allocator, "_of_glibc", {}.get)  # not with every allocator
    release_memory(much)
    assert trimmed == [0]


@pytest.fixture
def thresholds(monkeypatch):
    """What the allocator is told."""
    told, given_back = {}, []
    known = {"mallopt": told.__setitem__, "malloc_trim": given_back.append}
    monkeypatch.setattr(allocator, "_of_glibc", known.get)
    monkeypatch.setattr(allocator, "_CHOSEN", False)
    return told, given_back


def test_freed_memory_is_kept_for_a_while(thresholds):
    told, given_back = thresholds
    with freed_memory_kept(wanted=True):
        assert set(told.values()) == {1 << 30}
        assert not given_back
    assert told == {-1: 64 << 20, -3: 32 << 20}
    assert given_back == [0]


def test_what_the_user_tells_the_allocator_counts(thresholds, monkeypatch):
    monkeypatch.setattr(allocator, "_CHOSEN", True)
    with freed_memory_kept(wanted=True):
        pass
    assert thresholds == ({}, [])


@pytest.mark.parametrize("name", ["", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"])
def test_it_is_told_by_the_environment(name):
    """The one that the process was started in."""
    told = {n: v for n, v in os.environ.items() if not n.startswith(("MALLOC", "GLIBC"))}
    code = "from onnx_sipp import allocator; print(allocator._CHOSEN)"
    made = subprocess.run(
        [sys.executable, "-c", code], env={**told, **({name: ""} if name else {})},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert made.stdout.strip() == str(bool(name))


def test_it_is_done_where_it_is_wanted(thresholds):
    with freed_memory_kept(wanted=False):
        pass
    assert thresholds == ({}, [])


def test_other_allocators_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocator, "_of_glibc", {}.get)
    with freed_memory_kept(wanted=True):
        pass
