"""Ends a server whose models have ended, and models that do not end.

Fault (Triton 2.51): after SIGTERM the server ends up to 2 s after its models, since it looks once a second. Once, after
    a cover, it had not ended after 18 s; a request that it kept (`lingering_processes`) may be the cause.
Does: the supervisor waits until no process of a model is left and nobody is connected who might still read an answer,
    and then kills the server. A model's process that has not ended after `MODELS_S` is killed: it has no job then.
Test: `test_a_server_without_models_and_callers_is_not_waited_for`, `test_a_model_that_does_not_end_is_killed`
Delete when: Triton ends with its last model, and always ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from heartvoice.serving.process_registry import is_alive

log = logging.getLogger(__name__)

POLL_S = 0.05
MODELS_S = 2.5
"""Seconds after SIGTERM. With all models they take 1.5 s on two idle cores."""
_ESTABLISHED, _CONNECTED = "01", "03"
"""States in /proc/net/tcp and /proc/net/unix."""


def wait(
    process: subprocess.Popen[bytes],
    stubs: Callable[[], Mapping[str, int]],
    has_callers: Callable[[], bool],
    timeout_s: float,
    *,
    models_s: float = MODELS_S,
) -> bool:
    """Wait until a server that was told to stop has ended, or nothing is left that it should wait for.

    Args:
        process: the server.
        stubs: the processes of its models.
        has_callers: whether anybody is connected.
        timeout_s: longest wait.
        models_s: see `MODELS_S`.

    Returns:
        False if the time is over.
    """
    began, killed = time.monotonic(), False
    while time.monotonic() - began < timeout_s:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=POLL_S)
            return True
        left = {name: pid for name, pid in stubs().items() if is_alive(pid)}
        if not left and not has_callers():
            return True
        if left and not killed and time.monotonic() - began > models_s:
            killed = True
            log.info("%s did not end within %g s and is killed", ", ".join(sorted(left)), models_s)
            for pid in left.values():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    return False


def has_callers(pid: int, port: int, path: Path | None = None) -> bool:
    """Return whether anybody is connected to a server's port, or to its Unix socket; true if that is unknown.

    Args:
        pid: the server's process, for its network namespace.
        port: its TCP port.
        path: its Unix socket instead.
    """
    net = Path(f"/proc/{pid}/net")
    try:
        if path is not None:
            rows = [line.split() for line in (net / "unix").read_text().splitlines()]
            return any(row[5] == _CONNECTED and row[-1] == str(path) for row in rows)
        rows = [line.split() for name in ("tcp", "tcp6") for line in (net / name).read_text().splitlines()[1:]]
        return any(row[1].endswith(f":{port:04X}") and row[3] == _ESTABLISHED for row in rows)
    except OSError:
        return True
