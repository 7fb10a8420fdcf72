"""Runs chains of commands side by side, as processes that stop together and can go on later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from types import FrameType

from heartvoice.server.processes import start_with_parent
from train.frame.command import PAUSED
from train.frame.log import say
from train.frame.weights import write

QUIET = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
"""One core for each process; threads that wait take none."""
_STOPS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Step:
    """One command of a chain."""

    name: str
    command: Sequence[str]
    """Program and arguments."""
    result: Path | None = None
    """File for what it prints on stdout, if it ends with one of `answers`; None: stderr shows it."""
    answers: Sequence[int] = (0,)
    """Exit codes after which the chain goes on."""


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs a module in this Python."""
    return (sys.executable, "-m", module, *arguments)


def run_chains(chains: Sequence[Sequence[Step]]) -> tuple[int, Mapping[str, int]]:
    """Run each chain's steps one after the other, and the chains side by side.

    None of them outlives this process. SIGINT and SIGTERM are passed on once to what is running, so that trainings save
    their state, and no further step begins. A step that fails stops the others in the same way.

    Returns:
        The exit code: 0 if all steps are done, the failed step's, or `PAUSED` if steps are left. And each step's own.
    """
    chains_run = _Chains()
    with _stop_signals(chains_run), ThreadPoolExecutor(len(chains)) as pool:
        outcomes = [pool.submit(chains_run.run, chain) for chain in chains]
        codes = [outcome.result() for outcome in outcomes]
    failed = [code for code in codes if code not in (0, PAUSED)]
    return (failed[0] if failed else max(codes)), chains_run.codes


class _Chains:
    """The processes that run. Safe in all threads."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._lock = RLock()  # a second signal comes while the first one is handled

    def run(self, chain: Sequence[Step]) -> int:
        """Run one chain; returns 0, `PAUSED`, or the exit code of the step that failed."""
        for step in chain:
            try:
                code = self._run(step)
            except BaseException:
                self.stop()
                raise
            if code == PAUSED:
                return PAUSED
            if code not in step.answers:
                say(f"{step.name}: failed with exit code {code}; what else runs is stopped")
                self.stop()
                return code if code > 0 else 128 - code
        return 0

    def _run(self, step: Step) -> int:
        with self._lock:
            if self._stopped:
                return PAUSED
            # A session of its own: else a terminal's Ctrl-C reaches it twice, and the second one ends it at once.
            process = start_with_parent(
                step.command, env={**os.environ, **QUIET}, stdin=subprocess.DEVNULL, start_new_session=True,
                stdout=sys.stderr.fileno() if step.result is None else subprocess.PIPE,
            )  # fmt: skip
            self._running.add(process)
        printed, _ = process.communicate()
        with self._lock:
            self._running.discard(process)
            stopped = self._stopped
        code = process.returncode
        if stopped and -code in _STOPS:  # before it could save anything, or for good
            code = PAUSED
        self.codes[step.name] = code
        if step.result is not None and code in step.answers:
            step.result.parent.mkdir(parents=True, exist_ok=True)
            write(step.result, printed)
        return code

    def stop(self) -> None:
        """Begin no further step, and ask what is running to save and end."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.terminate()


@contextmanager
def _stop_signals(chains: _Chains) -> Iterator[None]:
    """Have SIGINT and SIGTERM stop the chains; a second one ends their trainings at once."""

    def stop(number: int, _frame: FrameType | None) -> None:
        say(f"{signal.Signals(number).name}: everything stops; the same command goes on from there")
        chains.stop()

    before = {number: signal.signal(number, stop) for number in _STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
