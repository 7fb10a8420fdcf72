"""How much one caller may ask for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields

from heartvoice.contracts.constants import MAX_FILE_BYTES
from heartvoice.errors import InvalidRequestError, QuotaError

BURST_S = 2.0
"""A caller that has been quiet may send so many seconds' worth of requests at once."""


@dataclass(frozen=True)
class Limits:
    """Of each caller, unless it says otherwise."""

    requests_per_s: float = 20.0
    """In the long run; twice as many at once."""
    bytes_per_minute: int = 1_000_000_000
    """Sent by the caller, in the long run; as many at once."""
    concurrent: int = 8
    """Calls under way; a stream is one."""
    requests_per_stream: int = 64
    max_message_bytes: int = 2 * MAX_FILE_BYTES + 2_000_000
    """One request: room for recording, reference and the rest. A caller can make the gateway hold `concurrent` times
    that."""
    receive_s: float = 300.0
    """How long the first request of a call may take to arrive."""
    stalled_s: float = 120.0
    """How long a caller may leave a response of a stream unread. The answer of a unary call is all there is of it: it
    waits, as one of the calls at once."""
    call_s: float = 3600.0
    """How long a call may take; a shorter deadline of the caller's counts."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            if not getattr(self, limit.name) > 0:
                raise InvalidRequestError(f"{limit.name}: expected more than 0, got {getattr(self, limit.name)}")
        if self.bytes_per_minute < self.max_message_bytes:
            raise InvalidRequestError(
                f"bytes_per_minute: expected at least max_message_bytes ({self.max_message_bytes}), or the largest "
                f"request could never be sent; got {self.bytes_per_minute}"
            )


class Bucket:
    """A token bucket: filled at a rate, up to its capacity, full at first."""

    def __init__(self, rate_per_s: float, capacity: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._capacity, self._clock = rate_per_s, capacity, clock
        self._level, self._at = capacity, clock()

    def wait_s(self, amount: float) -> float:
        """Seconds until so much is there, 0 if it is."""
        now = self._clock()
        self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (amount - self._level) / self._rate)

    def take(self, amount: float) -> None:
        """Take what `wait_s` said is there."""
        self._level -= amount


class Quota:
    """What one caller has asked for."""

    def __init__(self, caller: str, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.caller, self.limits = caller, limits
        self._live = 0
        self._requests = Bucket(limits.requests_per_s, max(1.0, BURST_S * limits.requests_per_s), clock)
        self._bytes = Bucket(limits.bytes_per_minute / 60, limits.bytes_per_minute, clock)

    def begin(self) -> None:
        """Admit a call; `end` must follow.

        Raises:
            QuotaError: too many are under way.
        """
        if self._live >= self.limits.concurrent:
            raise QuotaError(f"{self.caller}: expected at most {self.limits.concurrent} calls at once, got one more")
        self._live += 1

    def end(self) -> None:
        """A call is over."""
        self._live -= 1

    def request(self, size: int) -> None:
        """Admit a request of so many bytes; one that is refused costs nothing.

        Raises:
            QuotaError: it comes too soon.
        """
        wait_s = self._requests.wait_s(1)
        if wait_s:
            raise QuotaError(
                f"{self.caller}: expected at most {self.limits.requests_per_s:g} requests a second, got more; "
                f"try again in {wait_s:.1f} s"
            )
        wait_s = self._bytes.wait_s(size)
        if wait_s:
            raise QuotaError(
                f"{self.caller}: expected at most {self.limits.bytes_per_minute} bytes a minute, got more with these "
                f"{size}; try again in {wait_s:.1f} s"
            )
        self._requests.take(1)
        self._bytes.take(size)
