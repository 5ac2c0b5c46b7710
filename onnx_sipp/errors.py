"""Errors meant for people: what is wrong, where, and how to mend it."""

from __future__ import annotations

__all__ = ["SippError", "UsageError"]


class SippError(Exception):
    """The work could not be done; the command line ends with exit code 1."""


class UsageError(SippError):
    """The request itself is wrong; the command line ends with exit code 2."""
