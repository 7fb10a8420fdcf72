"""Processes of a server: how they end with this one, and together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

CRASHES = frozenset({signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})
"""Signals by which a program ends itself; nobody else sends them."""

# PR_SET_PDEATHSIG is 1, and holds through `exec`. A parent that has died before is noticed by its number.
_START = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def start_with_parent(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program that is killed when the thread that started it ends.

    A short Python program asks for that and becomes the wanted one. `preexec_fn` would fork this process, and gRPC's
    fork handlers abort such a child now and then if calls are under way (gRPC 1.85: 30 of 2990 forks). Without it
    `subprocess` uses vfork, which runs no handlers.

    Args:
        command: path of the program and its arguments.
        options: of `subprocess.Popen`.
    """
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", _START, str(os.getpid()), *command], **options)


def kill_group(pid: int) -> None:
    """Kill a process group, if there is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def crashed(returncode: int | None) -> bool:
    """Return whether a process was ended by a fault of its own program."""
    return returncode is not None and -returncode in CRASHES
