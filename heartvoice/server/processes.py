"""Processes of a server: how they end with ours, and together."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
CRASHES = frozenset({signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})
"""Signals by which a program ends itself; nobody else sends them."""


def die_with_parent() -> None:
    """In a new process: be killed when its parent dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def kill_group(pid: int) -> None:
    """Kill a process group, if there is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def crashed(returncode: int | None) -> bool:
    """Whether a process ended by a fault of its own program."""
    return returncode is not None and -returncode in CRASHES
