"""Retries of a call, its deadline, and the errors of a call that fails."""

from __future__ import annotations

import logging
import math
import random
import time
import uuid
from collections.abc import Callable

from heartvoice.client import wire
from heartvoice.errors import (
    DeadlineError,
    HeartvoiceError,
    ModelMissingError,
    ModelUnavailableError,
    RequestCancelledError,
)

_LOST = ("Socket closed", "Stream removed", "Connection reset")
"""gRPC's texts of a connection that ended in the middle of a call."""
_logger = logging.getLogger(__name__)


class RetryState:
    """The deadline of one call and what is left of its retries.

    A call is tried again only if it never began: the server could not be reached, or refused, and sent nothing.
    """

    def __init__(
        self,
        what: str,
        url: str,
        timeout_s: float,
        retries: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.count = 1
        self.request_id = uuid.uuid4().hex
        self.what = what
        self._url = url
        self._timeout_s = timeout_s
        self._retries = retries
        self._clock = clock
        self._jitter = jitter
        self._began = clock()

    def begin(self) -> None:
        """Start the deadline's clock, where that is later than the checks of the input."""
        self._began = self._clock()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the call began."""
        return self._clock() - self._began

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, None if there is none.

        Raises:
            DeadlineError: it has passed.
        """
        if math.isinf(self._timeout_s):
            return None
        left = self._timeout_s - self.elapsed_s
        if left <= 0:
            raise self._late()
        return left

    def closed(self) -> RequestCancelledError:
        """The error of a call whose client was closed."""
        return RequestCancelledError(f"{self.what}: the client was closed")

    def stalled(self, after_s: float) -> ModelUnavailableError:
        """The error of a stream that went silent: its model's process was killed."""
        return ModelUnavailableError(f"{self.what}: no sign of life for {after_s:g} s, its process may have died")

    def failure(self, status: str, details: str) -> HeartvoiceError:
        """The error of a call that gRPC says has failed."""
        # gRPC's own deadline text, not one that a model or a proxy sent
        if status == "DEADLINE_EXCEEDED" and self.elapsed_s >= self._timeout_s * 0.99:
            return self._late()
        if status == "UNAVAILABLE" and "connect" in details:
            details = f"{self._url}: {details}"
        if status == "UNAVAILABLE" and any(lost in details for lost in _LOST):
            details = f"{self.what}: the connection to {self._url} was lost ({details}); the server may have died"
        return wire.error_from_status(status, details)

    def delay_after(self, error: HeartvoiceError, *, received: bool) -> float:
        """Seconds to wait before the next try: doubling from 0.2 s, halved at random.

        Raises:
            HeartvoiceError: `error` itself, where another try is useless, forbidden or too late.
        """
        transient = isinstance(error, ModelUnavailableError) and not isinstance(error, ModelMissingError)
        if received or not transient or self.count > self._retries:
            raise error
        delay = self._jitter(0.5, 1.0) * min(0.2 * 2.0 ** (self.count - 1), 5.0)
        if self.elapsed_s + delay >= self._timeout_s:
            raise error
        self.count += 1
        _logger.debug("%s %s: try %d in %.2f s after: %s", self.what, self.request_id, self.count, delay, error)
        return delay

    def _late(self) -> DeadlineError:
        return DeadlineError(
            f"{self.what}: no complete answer within {self._timeout_s:g} s; for longer: --timeout (timeout_s)"
        )
