"""Whether the processes of a running server still work, and when it is time to mend one that does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from heartvoice.serving import process_registry
from heartvoice.serving.workarounds.unread_responses import private_bytes

DIED = "died"
RETRY_S, MAX_RETRY_S = 0.5, 30.0
"""After a reload that failed: the wait before the next try, doubled each time."""
PROBE_S = 2.0
"""How often the server itself is asked whether it lives."""
UNREAD_S = 120.0
"""Who reads nothing for so long, while that keeps others from being served, loses what is unread."""


@dataclass
class _Seen:
    """What is known of one model's process."""

    pid: int
    count: int | None
    since: float
    """When the count last changed."""


class StubHealth:
    """Looks at one run's stubs: dead, or alive without a sign of life (stopped, or stuck with Python's lock held)."""

    def __init__(
        self, run: Path, server_pid: int, hang_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`hang_s`: a process that does not count for so long is taken for hung."""
        self._run, self._server_pid, self._hang_s, self._clock = run, server_pid, hang_s, clock
        self._seen: dict[str, _Seen] = {}
        self._retries: dict[str, tuple[float, float]] = {}  # last wait, and when it is over

    def diagnose(self, name: str, pid: int) -> str | None:
        """What is wrong with the process of `name`, in words; None if it works, or if its next try is not due yet."""
        now = self._clock()
        # Of a dead stub the system may give the number to anybody's process, hence the parent.
        works = process_registry.is_alive(pid) and process_registry.parent(pid) == self._server_pid
        found = self._silence(name, pid, now) if works else DIED
        if found is None:
            self._retries.pop(name, None)
            return None
        return found if now >= self._retries.get(name, (0.0, now))[1] else None

    def _silence(self, name: str, pid: int, now: float) -> str | None:
        count, seen = process_registry.beats(name, self._run), self._seen.get(name)
        if seen is None or (seen.pid, seen.count) != (pid, count):
            self._seen[name] = _Seen(pid, count, now)
            return None
        silent_s = now - seen.since
        return f"gave no sign of life for {silent_s:.0f} s" if count is not None and silent_s > self._hang_s else None

    def failed(self, name: str) -> float:
        """Note that a reload failed; returns the seconds until the next try."""
        wait_s = min(2 * self._retries.get(name, (RETRY_S / 2, 0.0))[0], MAX_RETRY_S)
        self._retries[name] = (wait_s, self._clock() + wait_s)
        return wait_s


class ServerProbe:
    """Asks the server itself, from time to time, whether it lives."""

    def __init__(self, url: str, hang_s: float) -> None:
        self._channel = grpc.insecure_channel(url)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._hang_s, self._asked = hang_s, time.monotonic()

    def hung(self) -> bool:
        """Whether it left a question open for `hang_s`; asks at most every `PROBE_S`, and waits for the answer."""
        if time.monotonic() - self._asked < PROBE_S:
            return False
        try:
            self._stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=self._hang_s)
        except grpc.RpcError as error:
            return bool(error.code() is grpc.StatusCode.DEADLINE_EXCEEDED)
        finally:
            self._asked = time.monotonic()
        return False

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


class UnreadWatch:
    """Sees answers that nobody reads keep a server without jobs from taking any: those of callers that are gone.

    Triton frees them no more (2.51), and says nothing of whose they are.
    """

    def __init__(
        self, run: Path, server_pid: int, live_jobs: Callable[[], int], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run, self._server_pid, self._live_jobs, self._clock = run, server_pid, live_jobs, clock
        self._since: float | None = None

    def stuck(self) -> bool:
        """Whether it has been so for `UNREAD_S`. Cheap while no job is refused."""
        most = process_registry.full(self._run)
        if most is None:
            return False
        if private_bytes(self._server_pid) <= most:
            (self._run / process_registry.FULL).unlink(missing_ok=True)
            self._since = None
            return False
        if self._live_jobs():
            self._since = None
            return False
        if self._since is None:
            self._since = self._clock()
        return self._clock() - self._since >= UNREAD_S
