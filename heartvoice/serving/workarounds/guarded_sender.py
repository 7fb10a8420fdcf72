"""Wraps a response sender: no use after its final flag, which goes with the last response.

Fault (Triton 2.51): the server crashes (SIGSEGV), or a stub or a caller hangs, if the end of a request is not handled
    in one fixed order.
Does: uses one lock for sends and `is_cancelled`, and remembers that the sender is closed. It sends the last response
    together with the flag, and runs the caller's bookkeeping before it. The watcher's call never waits for the lock.
Test: `test_nothing_is_sent_or_asked_after_the_final_flag`
Delete when: Triton answers `is_cancelled` after the final flag and accepts a final flag by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import triton_python_backend_utils as pb_utils

from heartvoice.arrays import Array
from heartvoice.serving.workarounds.acknowledgements import AckReceiver
from heartvoice.serving.workarounds.deferred_release import FINISHED_STREAMS

ACK_POLL_S = 0.02
"""Seconds of one wait for an acknowledgement before the lock is tried again."""


class GuardedSender:
    """The response sender of one request. Thread-safe."""

    def __init__(self, request: Any, acks: AckReceiver | None) -> None:
        """Wrap the request's sender.

        Args:
            request: Triton's request.
            acks: acknowledgements of the caller, if the caller is another model with a stream.
        """
        self._acks = acks
        self._lock = threading.Lock()
        self.closed = False
        """True once the final flag was sent or is being sent."""
        self._last_sent = time.monotonic()
        self._sending_since: float | None = None
        self._sender = request.get_response_sender()

    @property
    def sends_arrays(self) -> bool:
        """Whether the caller reads arrays beside a response."""
        return self._acks is not None and self._acks.connected

    def send(self, response: Any, arrays: Mapping[str, Array] | None = None) -> None:
        """Send one response. No-op once the sender is closed.

        Args:
            response: Triton's.
            arrays: the other outputs of one with outputs; none unless the sender `sends_arrays` (see `array_frames`).
        """
        with self._turn():
            if not self.closed:
                self._last_sent = self._sending_since = time.monotonic()
                self._sender.send(response)
                if self._acks is not None:
                    self._acks.sent(arrays)
                self._sending_since = None

    def finish(self, response: Any | None, before: Callable[[], None]) -> None:
        """Send the final flag, with the last response if there is one. No-op once the sender is closed.

        Args:
            response: the last response, or None.
            before: called just before the flag, because a caller may stop the server after its answer.
        """
        with self._turn():
            if self.closed:
                return
            self.closed = True
            before()
            final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
            self._sending_since = time.monotonic()
            if response is None:
                self._sender.send(flags=final)
            else:
                self._sender.send(response, flags=final)
            if self._acks is not None:
                self._acks.close()

    def is_cancelled(self) -> bool:
        """Return whether the caller has cancelled; false if that is unknown. Never waits for a send."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self.closed:
                return False
            checkpoint = FINISHED_STREAMS.checkpoint()
            if self._sender.is_cancelled():
                return True  # from now on the answer needs no call to the stub's thread
            FINISHED_STREAMS.release(checkpoint)
            return False
        finally:
            self._lock.release()

    @property
    def idle_s(self) -> float:
        """Seconds since the last send; 0 during a send and while a send would wait for the caller."""
        if self._sending_since is not None or self._acks is not None:
            return 0.0
        return time.monotonic() - self._last_sent

    @property
    def sending_s(self) -> float:
        """Seconds of the send in progress; 0 without one."""
        since = self._sending_since
        return 0.0 if since is None else time.monotonic() - since

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the lock after the caller has acknowledged the previous response."""
        while True:
            with self._lock:
                if self._acks is None or self.closed or self._acks.complete():
                    yield
                    return
            self._acks.wait(ACK_POLL_S)
