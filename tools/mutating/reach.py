"""Which tests reach which lines, and how long each takes."""

import importlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import coverage
import pytest

from mutating.changes import Change
from mutating.forks import forked, quiet_pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Reach:
    """What a run of the tests has shown.

    Attributes:
        seconds: of each test, its fixtures included; keys are pytest's names, in order.
        tests: per file (relative to the repository) and line, the tests that reach it.
        modules: what the tests have imported that is not the project's.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    tests: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)

    def of(self, file: str, change: Change) -> list[str]:
        """The tests that reach a change, quickest first.

        Nobody sees what compiled code does, nor who uses what a module makes when it is imported:
        for such changes these are all tests that reach any line of the module.
        """
        by_line = self.tests.get(file, {})
        lines = change.lines if change.called else by_line
        found = {test for line in lines for test in by_line.get(line, [])}
        return sorted(found, key=lambda test: self.seconds[test])


class _Watch:
    """Tells coverage which test runs, and keeps the time."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self.measured = measured
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        start = time.perf_counter()
        result = yield
        self.seconds[item.nodeid] = time.perf_counter() - start
        self.measured.switch_context("")
        return result  # type: ignore[return-value]

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.measured.switch_context(f"setup {item.nodeid}")

    def pytest_runtest_call(self, item: pytest.Item) -> None:
        self.measured.switch_context(f"call {item.nodeid}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)


def reach(folders: list[str], suites: list[str], out: Path) -> Reach:
    """Runs the suites once, in a process of its own.

    Args:
        folders: of the package, watched.
        suites: files and folders of tests.
        out: file that keeps the result; it is read if it is there.

    Raises:
        SystemExit: a test fails as it is.
    """
    log = out.with_suffix(".log")
    if not out.exists():
        status = forked(lambda: _watched(folders, suites, out), limit=3600, log=log)
        if not out.exists():
            sys.exit(f"the tests fail as they are ({status}); see {log}")
    told = json.loads(out.read_text())
    for name in told["modules"]:
        try:
            importlib.import_module(name)
        except Exception:
            continue
    tests = {
        file: {int(line): names for line, names in lines.items()}
        for file, lines in told["tests"].items()
    }
    return Reach(told["seconds"], tests, told["modules"])


def _watched(folders: list[str], suites: list[str], out: Path) -> int:
    inside = [str(ROOT / folder / "*.py") for folder in folders]
    measured = coverage.Coverage(data_file=None, config_file=False, include=inside)
    watch = _Watch(measured)
    measured.start()
    status = quiet_pytest(suites, watch)
    measured.stop()
    if status:
        print("failed:", *watch.failed, sep="\n")
        return status
    data = measured.get_data()
    found: dict[str, Any] = {"seconds": watch.seconds, "tests": {}, "modules": _foreign()}
    for file in sorted(data.measured_files()):
        lines = data.contexts_by_lineno(file).items()
        found["tests"][str(Path(file).relative_to(ROOT))] = {
            line: sorted(_named(contexts, list(watch.seconds))) for line, contexts in lines
        }
    out.write_text(json.dumps(found))
    return 0


def _named(contexts: list[str], tests: list[str]) -> set[str]:
    """The tests behind contexts. What one sets up (a module's fixture), others of its file use."""
    names = set()
    for context in filter(None, contexts):
        phase, name = context.split(" ", 1)
        names.add(name)
        if phase == "setup":
            file = name.split("::")[0]
            names.update(test for test in tests if test.startswith(f"{file}::"))
    return names


def _foreign() -> list[str]:
    """Modules that come from other packages."""
    return sorted(
        name
        for name, module in sys.modules.items()
        if "site-packages" in (getattr(module, "__file__", None) or "")
        and not name.startswith(("onnx_sipp", "_"))
    )
