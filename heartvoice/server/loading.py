"""Waits until a started server is ready, and says what it loads meanwhile."""

from __future__ import annotations

import contextlib
import logging
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from heartvoice.errors import EngineError
from heartvoice.server import server_log
from heartvoice.server.channel import open_channel
from heartvoice.server.processes import crashed
from heartvoice.server.workarounds import stalled_start

log = logging.getLogger(__name__)
UNHEALTHY = "is not healthy"
"""Triton's words for a model's process that gave no sign of life for a second, as on a busy host."""
REPEAT_S = 10.0
"""Seconds without a loaded model after which the missing ones are named again."""
_LOADED = re.compile(r"successfully loaded '([^']+)'")


class LoadProgress:
    """Logs each model as the server loads it, by the server's own log."""

    def __init__(self, models: Sequence[str], log_path: Path, start: int) -> None:
        """Begin.

        Args:
            models: what will be loaded.
            log_path: the server's log.
            start: byte of the log where this start begins.
        """
        self._missing, self._total = list(models), len(models)
        self._log_path, self._start, self._at, self._rest = log_path, start, start, b""
        self._said = time.monotonic()

    @property
    def missing(self) -> tuple[str, ...]:
        """What was not loaded at the last look."""
        return tuple(self._missing)

    @property
    def log_bytes(self) -> int:
        """Size of the log at the last look."""
        return self._at

    def look(self) -> None:
        """Log what was loaded since the last look; without news, from time to time what is missing."""
        with self._log_path.open("rb") as file:
            file.seek(self._at)
            text = file.read()
        self._at += len(text)
        *lines, self._rest = (self._rest + text).split(b"\n")
        for line in lines:
            found = _LOADED.search(line.decode(errors="replace"))
            if found and found[1] in self._missing:
                self._missing.remove(found[1])
                self._say("loaded %s, %d of %d", found[1], self._total - len(self._missing), self._total)
        if self._missing and time.monotonic() - self._said >= REPEAT_S:
            self._say("still loading %s", ", ".join(self._missing))

    def reason(self) -> str:
        """Return why the start failed, by the server's log."""
        return server_log.reason(self._log_path, self._start)

    def _say(self, text: str, *values: object) -> None:
        self._said = time.monotonic()
        log.info(text, *values)


def wait_ready(
    process: subprocess.Popen[bytes],
    url: str,
    progress: LoadProgress,
    timeout_s: float,
    interrupted: Callable[[], bool],
    *,
    again: bool,
) -> bool:
    """Wait until a server answers; return false if it may be started `again`: it crashed, or stands still.

    Args:
        process: the server.
        url: its address.
        progress: says what it loads.
        timeout_s: longest wait.
        interrupted: true ends the wait.
        again: whether that is no error yet.

    Raises:
        KeyboardInterrupt: `interrupted` returned true.
        EngineError: it ended, or was not ready in time.
    """
    deadline, watch = time.monotonic() + timeout_s, stalled_start.StallWatch(process.pid)
    with open_channel(url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        while time.monotonic() < deadline:
            if interrupted():
                raise KeyboardInterrupt
            progress.look()
            status = process.poll()
            if again and (crashed(status) or (status is not None and UNHEALTHY in progress.reason())):
                return False
            if status is not None:
                raise EngineError(f"the server did not start: {progress.reason()}")
            if watch.stalled(progress.log_bytes, progress.missing):
                return _give_up(progress, watch, again=again)
            with contextlib.suppress(grpc.RpcError):
                if stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=2.0).ready:
                    progress.look()
                    return True
            time.sleep(0.05)
    raise EngineError(f"the server was not ready after {timeout_s:g} s: {progress.reason()}")


def _give_up(progress: LoadProgress, watch: stalled_start.StallWatch, *, again: bool) -> bool:
    """Say that a start stands still; return false if it may be repeated.

    Raises:
        EngineError: it may not.
    """
    missing = ", ".join(progress.missing) or "nothing"
    stands = f"{stalled_start.STALL_S:g} s without progress while {missing} was being loaded"
    if not again:
        raise EngineError(f"the server did not start: {stands}: {progress.reason()}")
    log.warning("%s: %s", stands, watch.describe(progress.missing))
    return False
