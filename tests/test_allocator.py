"""Whether freed memory is kept or given back."""

import os
import subprocess
import sys

import pytest
from small_models import make_model, weights

from onnx_sipp import allocator
from onnx_sipp.allocator import freed_memory_given_back, keep_freed_memory, release_memory
from onnx_sipp.checked import checked_options
from onnx_sipp.preparing import prepare
from onnx_sipp.progress import Silent


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
    known = {"mallopt": lambda *pair: told.update([pair]) or 1, "malloc_trim": given_back.append}
    monkeypatch.setattr(allocator, "_of_glibc", known.get)
    monkeypatch.setattr(allocator, "_CHOSEN", False)
    monkeypatch.setattr(allocator, "_keeping", [])
    return told, given_back


def test_freed_memory_is_kept_for_a_while(thresholds):
    told, given_back = thresholds
    with freed_memory_given_back():
        assert told == {}
        keep_freed_memory()
        assert told == {-1: 1 << 30, -3: 1 << 30}
        release_memory(1 << 30)
        assert not given_back
    assert told == {-1: 64 << 20, -3: 32 << 20}
    assert given_back == [0]


def test_what_the_user_tells_the_allocator_counts(thresholds, monkeypatch):
    monkeypatch.setattr(allocator, "_CHOSEN", True)
    with freed_memory_given_back():
        keep_freed_memory()
        release_memory(1 << 30)
        assert thresholds == ({}, [])
    assert thresholds == ({}, [0])


def test_what_nobody_has_raised_is_left_alone(thresholds):
    with freed_memory_given_back():
        pass
    assert thresholds == ({}, [])


def test_an_older_glibc_refuses_what_is_large(monkeypatch):
    told = {}

    def mallopt(name, value):
        if name == -3 and value > 32 << 20:
            return 0
        told[name] = value
        return 1

    monkeypatch.setattr(allocator, "_of_glibc", {"mallopt": mallopt}.get)
    monkeypatch.setattr(allocator, "_CHOSEN", False)
    monkeypatch.setattr(allocator, "_keeping", [])
    keep_freed_memory()
    assert told == {-1: 1 << 30, -3: 32 << 20}


@pytest.mark.parametrize(
    ("width", "large", "limit", "kept"),
    [
        (2048, False, 2 << 30, True),
        (64, False, 2 << 30, False),
        (2048, True, 2 << 30, False),
        (2048, False, 1 << 30, False),
    ],
)
def test_it_is_kept_where_layers_are_wide(thresholds, monkeypatch, width, large, limit, kept):
    """But not where memory is short."""
    monkeypatch.setattr("onnx_sipp.prepared.is_large", lambda model: large)
    proto = make_model([("MatMul", "x w", "y")], {"w": weights(width, 1100)}, {"x": ["n", width]})
    options = checked_options({"method": "magnitude", "memory_limit": limit})
    seen = []
    monkeypatch.setattr("onnx_sipp.preparing.measure", lambda *_: seen.append({**thresholds[0]}))
    with freed_memory_given_back():
        prepare(proto, weights(8, width), options, Silent())
    assert bool(seen[0]) == kept


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


def test_other_allocators_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocator, "_of_glibc", {}.get)
    with freed_memory_given_back():
        keep_freed_memory()
