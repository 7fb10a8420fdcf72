"""Gives a process's freed memory back to the system once it has been idle for a moment.

A long cover frees most of its memory in blocks that the C library keeps for the next one, in every process that it went
through. Within a job that is what makes large arrays cheap; after it, other processes need the memory.
"""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable

IDLE_S = 2.0
"""Seconds without work after which memory is given back."""


def trim() -> None:
    """Collect reference cycles, and return the C library's free pages of all its arenas. It takes milliseconds."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc alone has it, and needs it
        libc.malloc_trim(0)


class IdleMemory:
    """Calls a function in a thread, once after each stretch of work. Safe in all threads.

    The first stretch is what came before it: loading a model frees as much as work does.
    """

    def __init__(self, release: Callable[[], None] = trim, *, idle_s: float = IDLE_S) -> None:
        """Start the thread.

        Args:
            release: gives memory back.
            idle_s: seconds without work after which it is called.
        """
        self._idle_s, self._release = idle_s, release
        self._worked, self._again = threading.Event(), threading.Event()
        self._worked.set()
        threading.Thread(target=self._wait, name="idle-memory", daemon=True).start()

    def worked(self) -> None:
        """Note that the process has just worked."""
        self._again.set()
        self._worked.set()

    def _wait(self) -> None:
        while True:
            self._worked.wait()
            self._again.clear()
            while self._again.wait(self._idle_s):
                self._again.clear()
            self._worked.clear()
            self._release()
