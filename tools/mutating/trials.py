"""Trials of mutants: a changed module takes the place of the original, in one process only."""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from mutating.forks import forked, quiet_pytest

# Exit statuses of pytest: tests failed; they could not be collected, as when an import fails.
_FAILED, _INTERRUPTED = 1, 2


class _Instead(importlib.abc.MetaPathFinder):
    """Finds one module in another file.

    Numba keeps machine code beside the file, so that of a mutant is its own.
    """

    def __init__(self, name: str, file: Path) -> None:
        self.name, self.file = name, file

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        return (
            importlib.util.spec_from_file_location(name, self.file) if name == self.name else None
        )


class _Chosen:
    """Runs some of the tests, in the order given."""

    def __init__(self, tests: list[str]) -> None:
        self.places = {test: i for i, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        chosen = [item for item in items if item.nodeid in self.places]
        items[:] = sorted(chosen, key=lambda item: self.places[item.nodeid])


def outcome(module: str, file: Path, tests: list[str], seconds: float, root: Path) -> str:
    """Runs tests with a module taken from another file.

    Args:
        module: its name.
        file: what is imported instead.
        tests: their names, in the order to be run.
        seconds: what the tests take as a rule.
        root: the repository.

    Returns:
        ``killed``, ``time`` (it took too long, three times what is usual and 10 s) or ``survived``.

    Raises:
        RuntimeError: no test could be run at all.
    """
    suites = list(dict.fromkeys(test.split("::")[0] for test in tests))

    def work() -> int:
        os.chdir(root)
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(file.parent)  # what fails, fails here only
        sys.path.insert(0, str(root))
        sys.meta_path.insert(0, _Instead(module, file))
        return quiet_pytest(suites, _Chosen(tests))

    log = file.with_suffix(".log")
    status = forked(work, limit=10 + 3 * seconds, log=log)
    if status is None:
        return "time"
    if status in {_FAILED, _INTERRUPTED} or status < 0:
        return "killed"
    if status:
        raise RuntimeError(f"pytest ended with {status}: {log.read_text()[-2000:]}")
    return "survived"
