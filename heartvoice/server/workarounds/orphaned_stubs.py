"""Kills models' processes whose server has died.

Fault (Triton 2.51): a stub with a call in progress can outlive its server. If it holds Python's lock,
    `heartvoice.serving.workarounds.orphaned_stub` cannot end it from inside.
Does: finds stubs by their command lines. `serve` kills its own stubs at its stop, and those of dead servers at its
    start.
Test: `test_a_stub_that_was_only_just_started_ends_with_its_dead_owner`,
    `test_a_stop_ends_the_stubs_of_its_own_run_alone`
Delete when: stubs end with their server.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from heartvoice.shm_regions import PREFIX


def stubs() -> Iterator[tuple[int, str]]:
    """Yield the pid and the shared memory's name of each stub of this user.

    A stub's command line contains the name of its shared memory from the start.
    """
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_text().split("\0") if process.stat().st_uid == os.getuid() else []
        except (OSError, UnicodeDecodeError):
            continue  # ended, or another user's
        yield from ((int(process.name), argument) for argument in arguments if argument.startswith(PREFIX))


def kill_stubs(wanted: Callable[[str], bool]) -> None:
    """Kill the stubs for whose shared memory `wanted` is true."""
    for pid, region in stubs():
        if wanted(region):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
