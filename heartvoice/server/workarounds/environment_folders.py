"""Removes the folder that Triton's Python backend leaves in /tmp.

Fault (Triton 2.51): each Python backend makes an empty folder `/tmp/python_env_XXXXXX`, wherever TMPDIR is, and removes
    it only when the server ends by itself. After a kill, ours at a stop included, it stays.
Does: nothing outside of the server says whose such a folder is, so its name is read from the server's memory while that
    starts, when it is ready and before it is killed, and kept in the run's folder. It goes with its run: at the stop,
    or after a kill at the next start.
Tried: no working directory, environment, argument, mapped or open file of the server or of its models' processes names
    the folders (17 processes, all of /proc). Their times do not tell servers apart that start together: the two of one
    server were made 0.27 s after it began. The place is a constant in the server.
Test: `test_a_killed_server_leaves_nothing_after_the_next_start`, `test_a_folder_that_is_in_use_stays`,
    `test_a_start_that_is_given_up_leaves_no_folder`
Delete when: the folders go with their process, or their place can be chosen.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

_FILE = "environment-folders"
_NAME = re.compile(rb"/tmp/python_env_[A-Za-z0-9]{6}(?=\0)")
_BLOCK, _LONGEST = 2**20, 64
_HEAP = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) rw-p .*\[heap\]$", re.MULTILINE)


class EnvironmentFolders:
    """The folders of one run's servers."""

    def __init__(self, run: Path) -> None:
        self._run, self._found_of = run, 0

    def remember(self, pid: int) -> None:
        """Record a server's folders, beside those of earlier ones; none where the system does not let us look."""
        with contextlib.suppress(OSError):
            if found := _in_heap(pid):
                self._found_of = pid
                (self._run / _FILE).write_text("\n".join(sorted({*recorded(self._run), *found})))

    def look(self, pid: int) -> None:
        """Record a server's folders unless that was done: it may crash while it starts. It makes them all at once."""
        if pid != self._found_of:
            self.remember(pid)


def recorded(run: Path) -> list[str]:
    """Return the folders that were recorded for a run."""
    try:
        return (run / _FILE).read_text().splitlines()
    except FileNotFoundError:
        return []


def remove(run: Path) -> None:
    """Remove the folders of a run whose server has ended, if they are empty and this user's."""
    for name in recorded(run):
        with contextlib.suppress(OSError):  # gone, or in use
            if Path(name).stat().st_uid == os.getuid():
                Path(name).rmdir()


def _in_heap(pid: int) -> list[str]:
    """Return the folders of this user that a process's heap names."""
    heap = _HEAP.search(Path(f"/proc/{pid}/maps").read_text())
    if heap is None:
        return []
    at, end = (int(edge, 16) for edge in heap.groups())
    names, rest = set[str](), b""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(at)
        while at < end and (block := memory.read(min(_BLOCK, end - at))):
            text = rest + block
            names |= {name.decode() for name in _NAME.findall(text)}
            at, rest = at + len(block), text[-_LONGEST:]
    return sorted(name for name in names if Path(name).is_dir())
