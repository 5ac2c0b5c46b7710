"""Values of options, read from what is typed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import click

from onnx_sipp.memory import read_size

__all__ = ["byte_size", "input_shape", "numbers", "shares", "state_map", "state_pair"]

T = TypeVar("T")


def input_shape(value: str) -> tuple[str, tuple[int, ...]]:
    """Part ``name:1,3,224,224`` into the name (which may hold colons) and the numbers.

    Raises:
        BadParameter: it is not of that form.
    """
    name, _, dims = value.rpartition(":")
    try:
        shape = tuple(int(dim) for dim in dims.split(","))
    except ValueError:
        shape = ()
    if not name or not shape:
        raise click.BadParameter(f"{value!r} is not of the form name:1,3,224,224")
    return name, shape


def numbers(value: str) -> list[int]:
    """Read ``1,16`` as a list.

    Raises:
        BadParameter: it is not of that form.
    """
    return _listed(value, int, "numbers; write it like 1,16")


def shares(value: str) -> list[float]:
    """Read ``0.3,0.5`` as a list.

    Raises:
        BadParameter: it is not of that form.
    """
    return _listed(value, float, "shares; write it like 0.3,0.5,0.7")


def _listed(value: str, read: Callable[[str], T], what: str) -> list[T]:
    try:
        return [read(part) for part in value.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no list of {what}") from error


def state_pair(value: str) -> tuple[str, str]:
    """Part ``in=out`` into the name of an input and that of the output it comes from.

    Raises:
        BadParameter: it is not of that form, nor empty.
    """
    given, _, made = value.partition("=")
    if value and not (given and made):
        raise click.BadParameter(f"{value!r} is not of the form input=output")
    return given, made


def state_map(pairs: Iterable[tuple[str, str]]) -> dict[str, str] | None:
    """States by input; None if no pair was given, nothing if the only one is empty."""
    named = list(pairs)
    return {given: made for given, made in named if given} if named else None


def byte_size(value: str) -> int:
    """Read a number of bytes: ``512MB``, ``2GB``, ``1048576``.

    Raises:
        BadParameter: it is not of that form.
    """
    size = read_size(value)
    if size is None:
        raise click.BadParameter(f"{value!r} is no size; write it like 512MB or 2GB")
    return size
