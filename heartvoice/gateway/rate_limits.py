"""Rate limits and quotas of each caller."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields

from heartvoice.contracts.constants import MAX_CHANNELS, MAX_FILE_BYTES, MAX_RECORDING_S, SAMPLE_RATE_HZ
from heartvoice.errors import InvalidRequestError, QuotaError

_LONGEST_SAMPLES_BYTES = round(MAX_RECORDING_S) * SAMPLE_RATE_HZ * MAX_CHANNELS * 4
BURST_S = 2.0
"""Seconds of a caller's rate that it may send in one burst."""


@dataclass(frozen=True)
class Limits:
    """Limits of each caller, unless stated otherwise."""

    requests_per_s: float = 20.0
    """Long-term rate; a burst may have twice as many."""
    bytes_per_minute: int = 1_000_000_000
    """Long-term rate of bytes from the caller; a burst may have as many."""
    concurrent: int = 8
    """Calls in progress; a stream is one call."""
    requests_per_stream: int = 64
    max_message_bytes: int = _LONGEST_SAMPLES_BYTES + MAX_FILE_BYTES + 2_000_000
    """Size of one request: the longest recording as samples at 48 kHz, a reference as a file, and the rest. A caller
    can make the gateway use `concurrent` times this memory."""
    receive_s: float = 300.0
    """Longest wait for the first request of a call."""
    stalled_s: float = 120.0
    """Longest time that a caller may leave a stream's response unread. A unary response waits without this limit, as
    one of the concurrent calls."""
    call_s: float = 3600.0
    """Longest duration of a call; a shorter deadline of the caller takes precedence."""

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
    """A token bucket: starts full and refills at a rate up to its capacity."""

    def __init__(self, rate_per_s: float, capacity: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._capacity, self._clock = rate_per_s, capacity, clock
        self._level, self._at = capacity, clock()

    def wait_s(self, amount: float) -> float:
        """Return the seconds until the amount is available; 0 if it is."""
        now = self._clock()
        self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (amount - self._level) / self._rate)

    def take(self, amount: float) -> None:
        """Take an amount that is available by `wait_s`."""
        self._level -= amount


class Quota:
    """The usage of one caller."""

    def __init__(self, caller: str, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.caller, self.limits = caller, limits
        self._live = 0
        self._requests = Bucket(limits.requests_per_s, max(1.0, BURST_S * limits.requests_per_s), clock)
        self._bytes = Bucket(limits.bytes_per_minute / 60, limits.bytes_per_minute, clock)

    def begin(self) -> None:
        """Admit a call; `end` must follow.

        Raises:
            QuotaError: too many calls are in progress.
        """
        if self._live >= self.limits.concurrent:
            raise QuotaError(f"{self.caller}: expected at most {self.limits.concurrent} calls at once, got one more")
        self._live += 1

    def end(self) -> None:
        """Record the end of a call."""
        self._live -= 1

    def request(self, size: int) -> None:
        """Admit a request of this size in bytes; a refused request costs nothing.

        Raises:
            QuotaError: the request exceeds the rate.
        """
        wait_s = self._requests.wait_s(1)
        if wait_s:
            raise QuotaError(
                f"{self.caller}: expected at most {self.limits.requests_per_s:g} requests a second, got more; "
                f"try again in {wait_s:.1f} s"
            )
        self._check_bytes(size)
        self._requests.take(1)
        self._bytes.take(size)

    def added(self, size: int) -> None:
        """Admit bytes that the gateway adds to an admitted request: a registered voice's reference.

        Raises:
            QuotaError: they exceed the rate.
        """
        self._check_bytes(size)
        self._bytes.take(size)

    def _check_bytes(self, size: int) -> None:
        wait_s = self._bytes.wait_s(size)
        if wait_s:
            raise QuotaError(
                f"{self.caller}: expected at most {self.limits.bytes_per_minute} bytes a minute, got more with these "
                f"{size}; try again in {wait_s:.1f} s"
            )
