"""Load onnxruntime when it is first needed.

It starts a thread as it is loaded. Forks of a process have no threads but one, so the process that
workers are forked from loads all but this; see `cluster.loaded`.
"""

from __future__ import annotations

from typing import Any

__all__ = ["runtime"]


def runtime() -> Any:
    """The module ``onnxruntime``."""
    import onnxruntime  # noqa: PLC0415 - see above

    return onnxruntime
