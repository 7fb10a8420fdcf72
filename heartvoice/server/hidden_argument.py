"""Start a program with arguments that its command line does not show.

Every user of a host can read every process's command line, and Triton takes its keys nowhere else. So the program
starts with a stand-in for each argument, and with the argument itself in its environment, which its own user alone can
read. It is traced, and so stops after `exec`, before its first instruction: then the stand-in's slot in its argv is
pointed at the text in the environment, and the environment's slot at its neighbour, so that the program's children do
not inherit it. The kernel goes on showing the stand-in: at no moment does the argument stand on the command line.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

log = logging.getLogger(__name__)

_VARIABLE = "HEARTVOICE_SECRET_ARGUMENT"
_SHOWN = "every user of this host can read the server's admin key in the process list: %s"
_TRIES = 2
"""A child that was killed before its program began is no reason to show the argument."""
_TRACE_ME, _DETACH = 0, 17
_STACK_FIELD = 28
"""Of /proc/PID/stat, counted from 1: where argc lies when a program begins; argv and environment follow it."""
_WORD = struct.Struct("=Q")
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


class NotHiddenError(Exception):
    """The kernel does not allow it here."""


def start(
    command: Sequence[str],
    hidden: Mapping[str, str],
    *,
    env: Mapping[str, str],
    before_exec: Callable[[], None],
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start `command`, whose program finds each of the `hidden` arguments where the command has its stand-in.

    Where the kernel does not allow that (a container without ptrace), they stand on the command line, and a
    warning says so.

    Args:
        command: the program and its arguments, each stand-in among them once.
        hidden: whole arguments by their stand-ins, which are what the process list shows.
        env: the program's environment; not empty.
        before_exec: runs in the child.
        options: of `subprocess.Popen`.
    """

    assert env, "the first secret's slot needs a neighbour"
    variables = {f"{_VARIABLE}_{index}": secret for index, secret in enumerate(hidden.values())}

    def traced() -> None:
        before_exec()
        if _LIBC.ptrace(_TRACE_ME, 0, None, None) != 0:
            raise NotHiddenError

    for _ in range(_TRIES):
        try:
            process = subprocess.Popen(command, env={**env, **variables}, preexec_fn=traced, **options)
            _release(process, dict(zip(hidden, variables, strict=True)))
            return process
        except (NotHiddenError, subprocess.SubprocessError) as error:
            log.debug("cannot hide the argument: %s", error)  # `warn_if_shown` warns
    plain = [hidden.get(argument, argument) for argument in command]
    return subprocess.Popen(plain, env=dict(env), preexec_fn=before_exec, **options)


def warn_if_shown(pid: int, secret: str) -> None:
    """Look at the process list: a script in the program's place passes its arguments on in sight."""
    with contextlib.suppress(OSError):
        if secret.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            log.warning(_SHOWN, "the server is started by a script")


def _release(process: subprocess.Popen[bytes], variables: Mapping[str, str]) -> None:
    """Put the arguments into their stand-ins' places and let the process go; only the thread that started it may."""
    try:
        _, status = os.waitpid(process.pid, 0)
        if not os.WIFSTOPPED(status) or os.WSTOPSIG(status) != signal.SIGTRAP:
            raise NotHiddenError(f"expected the new process to stop at its start, got status {status:#x}")
        with Path(f"/proc/{process.pid}/mem").open("r+b", buffering=0) as memory:
            for stand_in, variable in variables.items():  # in their order: a slot's neighbour holds no secret any more
                _swap(memory, _stack(process.pid), stand_in.encode() + b"\0", f"{variable}=".encode())
        if _LIBC.ptrace(_DETACH, process.pid, None, None) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    except (NotHiddenError, OSError) as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        raise NotHiddenError(str(error)) from error


def _stack(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[_STACK_FIELD - 3])


def _swap(memory: IO[bytes], stack: int, stand_in: bytes, name: bytes) -> None:
    """Point argv at the text in the environment, and that text's slot at its neighbour's."""
    arguments = stack + _WORD.size
    variables = arguments + (_word(memory, stack) + 1) * _WORD.size
    argument, variable = _find(memory, arguments, stand_in), _find(memory, variables, name)
    text = _word(memory, variable) + len(name)
    _put(memory, variable, _word(memory, variable - _WORD.size))
    _put(memory, argument, text)


def _find(memory: IO[bytes], slot: int, wanted: bytes) -> int:
    """The first slot of a list of strings whose string begins so."""
    while text := _word(memory, slot):
        if _read(memory, text, len(wanted)) == wanted:
            return slot
        slot += _WORD.size
    raise NotHiddenError("the new process's arguments are not where they are expected")


def _read(memory: IO[bytes], at: int, size: int) -> bytes:
    memory.seek(at)
    return memory.read(size)


def _word(memory: IO[bytes], at: int) -> int:
    value: int = _WORD.unpack(_read(memory, at, _WORD.size))[0]
    return value


def _put(memory: IO[bytes], at: int, value: int) -> None:
    memory.seek(at)
    memory.write(_WORD.pack(value))
