"""Notices a start that stands still.

Fault (Triton 2.51): rarely, on a busy host, a server that is started is never ready and says nothing more; seen once in
    some hundred starts, the cause is unknown.
Does: while models are being loaded, watches the server's log and the processor time of the server and of the processes
    of the models that are missing. Where neither moves for `STALL_S`, the start is given up and repeated once.
Test: `test_a_start_that_stands_still_is_given_up`, `test_a_start_that_works_is_waited_for`
Delete when: no start stands still.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from heartvoice.serving import process_registry

STALL_S = 60.0
LEAST_CPU_S = 1.0
"""Processor time in `STALL_S` of a start that works: a fiftieth of one core. An idle server takes a third of that."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_INSTANCE = re.compile(r"(\w+)_\d+_[a-z]*\d+")
"""How Triton names the instances of a model."""


class StallWatch:
    """Watches one start."""

    def __init__(self, server_pid: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._server_pid, self._clock = server_pid, clock
        self._since, self._log_bytes, self._cpu = clock(), -1, 0.0

    def stalled(self, log_bytes: int, missing: Sequence[str]) -> bool:
        """Return whether the start has stood still for `STALL_S`.

        Args:
            log_bytes: size of the server's log.
            missing: the models that are not loaded yet.
        """
        now = self._clock()
        if log_bytes == self._log_bytes and now - self._since < STALL_S:
            return False
        cpu = sum(cpu_s(pid) for pid in (self._server_pid, *loading(self._server_pid, missing).values()))
        if log_bytes == self._log_bytes and cpu - self._cpu < LEAST_CPU_S:
            return True
        self._since, self._log_bytes, self._cpu = now, log_bytes, cpu
        return False

    def describe(self, missing: Sequence[str]) -> str:
        """Return what the system says of the server and of each process that is missing."""
        processes = {"server": self._server_pid, **loading(self._server_pid, missing)}
        return ", ".join(f"{name} (pid {pid}) {_state(pid)}" for name, pid in processes.items())


def cpu_s(pid: int) -> float:
    """Return the processor time of a process in seconds; 0 if it has ended."""
    fields = process_registry.stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S if fields else 0.0


def loading(server_pid: int, models: Sequence[str]) -> dict[str, int]:
    """Return the processes of a server by model, whether they have registered or not."""
    found: dict[str, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        if process_registry.parent(pid) == server_pid:
            try:
                arguments = (folder / "cmdline").read_text(errors="replace").split("\0")
            except OSError:
                continue  # it has just ended
            names = (_INSTANCE.fullmatch(argument) for argument in arguments)
            found |= {name[1]: pid for name in names if name and name[1] in models}
    return found


def _state(pid: int) -> str:
    try:
        waits_in = Path(f"/proc/{pid}/wchan").read_text() or "?"
    except OSError:
        waits_in = "?"
    state = (process_registry.stat(pid) or ["gone"])[0]
    return f"in state {state} at {waits_in} after {cpu_s(pid):.1f} s"
