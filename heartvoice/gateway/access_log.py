"""Records of calls, the access log and the gateway's metrics."""

from __future__ import annotations

import asyncio
import datetime
import json
import logging
import time
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from heartvoice.gateway.rate_limits import Bucket, Quota
from heartvoice.redaction import traceback_without_messages

log = logging.getLogger(__name__)
access_log = logging.getLogger("heartvoice.gateway.access")
UNKNOWN_CALLER = "-"
NOBODYS_PER_S = 10.0
"""Access log lines for anonymous callers; all calls are counted, but their log must not fill the disk."""
SETTLE_S = 0.2
"""Longest wait in seconds before a finished call is counted and logged, together with others. One by one, between waits
for the network, the work takes several times as long, because the processor's caches are cold."""
_SECONDS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)


@dataclass(eq=False)
class Call:
    """One call, from its headers to its status."""

    method: str
    streamed: bool
    task: asyncio.Task[object]
    address: str = ""
    """Where the call comes from, with its port; a Unix socket's callers have none."""
    caller: str = UNKNOWN_CALLER
    model: str = UNKNOWN_CALLER
    request_id: str = ""
    consent_records: list[str] = field(default_factory=list)
    """Of the registered voices that sing in it."""
    bytes_in: int = 0
    bytes_out: int = 0
    requests: int = 0
    responses: int = 0
    code: str = "CANCELLED"
    """The task to cancel; a caller that has left gets no status."""
    refusal: str = ""
    overdue: str = ""
    """The reason if the gateway ended it."""
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    """Start in seconds since 1970."""
    seconds: float = 0.0
    writing_since: float | None = None
    quota: Quota | None = None
    """The quota that counts it until its end."""

    def end(self, reason: str) -> None:
        """End the call; the status tells the caller the reason."""
        if not self.overdue:
            self.overdue = reason
            self.task.cancel()


class Metrics:
    """The gateway's Prometheus metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        prefix, registry = "heartvoice_gateway_", self.registry
        self._calls = Counter(
            f"{prefix}calls", "Calls that ended", ("caller", "method", "model", "code"), registry=registry
        )
        self._refused = Counter(
            f"{prefix}refused", "Calls and requests refused here, by reason", ("reason",), registry=registry
        )
        self._bytes = Counter(f"{prefix}bytes", "Bytes of messages", ("caller", "direction"), registry=registry)
        self._seconds = Histogram(
            f"{prefix}seconds", "How long calls took", ("method", "model"), buckets=_SECONDS, registry=registry
        )
        self._nobodys = Bucket(NOBODYS_PER_S, 10 * NOBODYS_PER_S)
        self._over: list[Call] = []
        self.live = Gauge(f"{prefix}calls_live", "Calls under way", registry=registry)

    def refused(self, reason: str) -> None:
        """Count a refusal: authentication, method, model, request, quota, registry."""
        self._refused.labels(reason).inc()

    def ended(self, call: Call) -> None:
        """Queue a finished call for the metrics and the access log."""
        call.ended, call.seconds = time.time(), time.monotonic() - call.began
        self._over.append(call)
        if len(self._over) == 1:
            asyncio.get_running_loop().call_later(SETTLE_S, self.settle)

    def settle(self) -> None:
        """Count and log all calls that have ended."""
        over, self._over = self._over, []
        for call in over:
            try:
                self._settle(call)
            except Exception as error:  # an error of the access log's file: the other calls are still counted
                log.error("%s: a call is not in the access log, %s", call.method, traceback_without_messages(error))

    def _settle(self, call: Call) -> None:
        """Count a call and log its address, caller, method, size and duration, never its contents."""
        self._calls.labels(call.caller, call.method, call.model, call.code).inc()
        self._bytes.labels(call.caller, "in").inc(call.bytes_in)
        self._bytes.labels(call.caller, "out").inc(call.bytes_out)
        self._seconds.labels(call.method, call.model).observe(call.seconds)
        if call.caller == UNKNOWN_CALLER:
            if self._nobodys.wait_s(1):
                return
            self._nobodys.take(1)
        if access_log.isEnabledFor(logging.INFO):
            line = {
                "time": datetime.datetime.fromtimestamp(call.ended, datetime.timezone.utc).isoformat(
                    timespec="milliseconds"
                ),
                "address": call.address, "caller": call.caller,
                "method": call.method, "model": call.model, "id": call.request_id,
                "consent_records": call.consent_records,
                "code": call.code, "refusal": call.refusal, "requests": call.requests, "responses": call.responses,
                "bytes_in": call.bytes_in, "bytes_out": call.bytes_out, "seconds": round(call.seconds, 4),
            }  # fmt: skip
            access_log.info("%s", json.dumps(line))
