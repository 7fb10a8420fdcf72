"""Retries of a call, its deadline, and the errors of a call that fails."""

from __future__ import annotations

import logging
import math
import random
import re
import time
import uuid
from collections.abc import Callable

from heartvoice.client import wire
from heartvoice.client.connection_errors import connection_error
from heartvoice.errors import (
    DeadlineError,
    HeartvoiceError,
    ModelMissingError,
    ModelUnavailableError,
    RequestCancelledError,
)

_LOST = ("Socket closed", "Stream removed", "Connection reset")
"""gRPC's texts of a connection that ended in the middle of a call."""
AT_ONCE_S = 2.0
"""Seconds from a call's beginning in which a lost connection says that the server refuses the caller."""
_NO_TOKEN = "give your token by HEARTVOICE_TOKEN, or --token-file FILE, or ask the gateway's operator for one"  # noqa: S105
RECOVERY_S = 60.0
"""Seconds for which a call waits until what died is served again: `serve` loads models anew and restarts Triton."""
_RESTARTING = re.compile(r"process (?:has )?died|may have died|is not healthy|is not ready|no available versions")
"""In the text of a call that failed because a process died or is being restarted."""
_logger = logging.getLogger(__name__)


class RetryState:
    """The deadline of one call and what is left of its retries.

    A call is tried again if the server could not be reached, refused it for want of room, or lost it: a process died.
    A lost call gets `RECOVERY_S` to begin again, in as many tries as that takes, and may be lost `retries` times.
    """

    def __init__(  # noqa: PLR0913 (the facts of one call)
        self,
        what: str,
        url: str,
        timeout_s: float,
        retries: int,
        *,
        secure: bool = False,
        certified: bool = False,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.count = 1
        self.request_id = uuid.uuid4().hex
        self.what = what
        self._url = url
        self._timeout_s = timeout_s
        self._retries = retries
        self._secure, self._certified = secure, certified
        self._clock = clock
        self._jitter = jitter
        self._began = clock()
        self._refused = self._lost = self._failed = 0
        """Tries without a sign of a restart, tries that had begun, and failures since the last sign of life."""
        self._recovers_until = -math.inf

    def begin(self) -> None:
        """Start the deadline's clock, where that is later than the checks of the input."""
        self._began = self._clock()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the call began."""
        return self._clock() - self._began

    @property
    def may_repeat(self) -> bool:
        """True if a try that fails now may be repeated, its error permitting."""
        return self._lost < self._retries

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
        if status == "UNAVAILABLE":
            unconnected = connection_error(self._url, details, secure=self._secure)
            if unconnected is not None:
                return unconnected
        if status == "UNAVAILABLE" and any(lost in details for lost in _LOST):
            # With TLS 1.3 a server refuses a caller without certificate only after the handshake.
            hint = "the server may have died"
            if self._secure and not self._certified and self.elapsed_s < AT_ONCE_S:
                hint = "it may ask for a client's certificate, --private-key and --certificate-chain"
            details = f"{self.what}: the connection to {self._url} was lost ({details}); {hint}"
        if status == "UNAUTHENTICATED":
            details = f"{self._url}: {details.removeprefix('UNAUTHENTICATED: ')}; {_NO_TOKEN}"
        return wire.error_from_status(status, details)

    def delay_after(self, error: HeartvoiceError, *, received: bool) -> float:
        """Seconds to wait before the next try: doubling from 0.2 s, halved at random.

        Args:
            error: of the try.
            received: the server had answered with anything but a refusal.

        Raises:
            HeartvoiceError: `error` itself, where another try is useless, forbidden or too late.
        """
        transient = isinstance(error, ModelUnavailableError) and not isinstance(error, ModelMissingError)
        if not transient or not self._may_go_on(error, received):
            raise error
        delay = self._jitter(0.5, 1.0) * min(0.2 * 2.0 ** (self._failed - 1), 5.0)
        if self.elapsed_s + delay >= self._timeout_s:
            raise error
        self.count += 1
        _logger.debug("%s %s: try %d in %.2f s after: %s", self.what, self.request_id, self.count, delay, error)
        return delay

    def _may_go_on(self, error: HeartvoiceError, received: bool) -> bool:
        """Count the failure; return whether the retries allow another try."""
        now = self._clock()
        self._failed = 1 if received else self._failed + 1
        if received:
            self._lost += 1
            self._recovers_until = now + RECOVERY_S
            return self._lost <= self._retries
        if math.isinf(self._recovers_until) and _RESTARTING.search(str(error)):
            self._recovers_until = now + RECOVERY_S
        if now < self._recovers_until:
            return self._retries > 0
        self._refused += 1
        return self._refused <= self._retries

    def _late(self) -> DeadlineError:
        return DeadlineError(
            f"{self.what}: no complete answer within {self._timeout_s:g} s; for longer: --timeout (timeout_s)"
        )
