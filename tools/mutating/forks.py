"""Processes that start warm: a fork has the libraries that its parent has imported."""

import contextlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

MEMORY = 12 << 30


def forked(work: Callable[[], int], *, limit: float, log: Path) -> int | None:
    """Runs work in a child that leads a group of processes of its own.

    Args:
        work: returns the exit status.
        limit: seconds of CPU; the clock may run twenty times as long, as the machine may be busy.
        log: what it prints.

    Returns:
        The exit status, negative for a signal; None if it took too long.
    """
    sys.stdout.flush()
    child = os.fork()
    if not child:
        status = 70
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 10))
            target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(target, 1)
            os.dup2(target, 2)
            status = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    try:
        return _waited(child, time.monotonic() + 20 * limit)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)


def _waited(child: int, until: float) -> int | None:
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return None if code in {-signal.SIGXCPU, -signal.SIGKILL} else code
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def quiet_pytest(suites: list[str], plugin: object) -> int:
    """Runs tests in this process, one after the other, up to the first that fails."""
    plain = ["-o", "addopts=", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    return int(pytest.main([*plain, "-p", "no:xdist", *suites], plugins=[plugin]))
