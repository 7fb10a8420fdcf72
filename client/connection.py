"""What both clients share: where the server is, when to try again, and what a stream must look like."""

from __future__ import annotations

import logging
import math
import os
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import grpc

from heartvoice.client import wire
from heartvoice.client.messages import (
    DEFAULT_STALL_TIMEOUT_S,
    DEFAULT_TIMEOUT_S,
    DEFAULT_URL,
    Chunk,
    Event,
    Report,
    StemsReport,
)
from heartvoice.contracts.constants import MAX_FILE_BYTES
from heartvoice.errors import (
    DeadlineError,
    EngineError,
    HeartvoiceError,
    InvalidRequestError,
    ModelMissingError,
    ModelUnavailableError,
    RequestCancelledError,
)

READY_TIMEOUT_S = 5.0
MAX_RECEIVE_BYTES = MAX_FILE_BYTES + 4_000_000
MAX_SEND_BYTES = 2**31 - 1
"""Protobuf's own limit. The most that a contract allows is half of it: 600 s of stereo samples at 192 kHz."""
DRAIN_TIMEOUT_S, DRAIN_IDLE_S = 2.0, 0.15
"""A stream that is left before its end is read for so long at most before it is cancelled, and until such a pause:
Triton never frees what a cancelled stream had not sent (2.51), up to 92 MB for a song that was played as it came."""
_LOST = ("Socket closed", "Stream removed", "Connection reset")
"""In gRPC's own words of a connection that ended in the middle of a call."""
M = TypeVar("M")
Pem = str | Path | bytes
"""A PEM file's path, or its contents."""
TOKEN_VARIABLE = "HEARTVOICE_TOKEN"  # noqa: S105 (a variable's name)
_LOOPBACK = re.compile(r"^(127\.\d+\.\d+\.\d+|localhost|\[::1\]):\d+$")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Connection:
    """How to reach a server; `Client` documents the fields."""

    url: str = DEFAULT_URL
    tls: bool = False
    root_certificates: Pem | None = None
    private_key: Pem | None = None
    certificate_chain: Pem | None = None
    keepalive_s: float | None = None
    keepalive_timeout_s: float = 20.0
    timeout_s: float = DEFAULT_TIMEOUT_S
    stall_timeout_s: float = DEFAULT_STALL_TIMEOUT_S
    retries: int = 3
    metadata: Sequence[tuple[str, str]] = field(default=(), repr=False)
    token_file: str | Path | None = None

    def __post_init__(self) -> None:
        if not self.url or re.match(r"https?://|grpcs?://", self.url):
            raise InvalidRequestError(f"url: expected host:port of the gRPC endpoint, got {self.url!r}")
        if (self.private_key is None) != (self.certificate_chain is None):
            raise InvalidRequestError("private_key, certificate_chain: expected both or neither, got one")
        check_timeout(self.timeout_s)
        check_timeout(self.stall_timeout_s)
        if self.retries < 0:
            raise InvalidRequestError(f"retries: expected 0 or more, got {self.retries}")
        token = read_token(self.token_file)
        if token and not any(name == "authorization" for name, _ in self.metadata):
            self._check_private()
            object.__setattr__(self, "metadata", (*self.metadata, ("authorization", f"Bearer {token}")))

    def _check_private(self) -> None:
        if self.credentials is None and not (_LOOPBACK.match(self.url) or self.url.startswith("unix:")):
            raise InvalidRequestError(
                f"token: expected TLS on the way to {self.url}, where others could read the token; got plain text"
            )

    @property
    def options(self) -> list[tuple[str, int]]:
        """Channel options: room for files and recordings, our retries instead of gRPC's, quick reconnection."""
        options = [
            ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
            ("grpc.max_send_message_length", MAX_SEND_BYTES),
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ]
        if _LOOPBACK.match(self.url):
            options.append(("grpc.enable_http_proxy", 0))  # http_proxy would lead loopback calls astray
        if self.keepalive_s is not None:
            options += [
                ("grpc.keepalive_time_ms", round(self.keepalive_s * 1000)),
                ("grpc.keepalive_timeout_ms", round(self.keepalive_timeout_s * 1000)),
                ("grpc.http2.max_pings_without_data", 0),
            ]
        return options

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """TLS credentials, or None for plain text."""
        pems = (self.root_certificates, self.private_key, self.certificate_chain)
        if not self.tls and all(pem is None for pem in pems):
            return None
        return grpc.ssl_channel_credentials(*(_read_pem(pem) for pem in pems))

    def attempts(self, what: str, timeout_s: float | None) -> RetryState:
        """The tries of one call to the model `what`; a timeout of None is the connection's own.

        Raises:
            InvalidRequestError: the timeout is not above 0.
        """
        check_timeout(timeout_s)
        return RetryState(what, self.url, self.timeout_s if timeout_s is None else timeout_s, self.retries)


def _read_pem(pem: Pem | None) -> bytes | None:
    if pem is None or isinstance(pem, bytes):
        return pem
    try:
        return Path(pem).read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"certificate: cannot read {str(pem)!r}: {error.strerror}") from error


def read_token(path: str | Path | None) -> str:
    """The bearer token of that file, else of HEARTVOICE_TOKEN; "" if there is neither.

    Raises:
        InvalidRequestError: the file cannot be read, or holds no token.
    """
    try:
        text = os.environ.get(TOKEN_VARIABLE, "") if path is None else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"token: cannot read {str(path)!r}: {error}") from error
    token = text.strip()
    if not re.fullmatch(r"[!-~]*", token) or (path is not None and not token):
        raise InvalidRequestError(f"token: expected one word, got {len(token)} characters of something else")
    return token


def check_timeout(timeout_s: float | None) -> None:
    """Refuse a timeout that is not above 0; None and infinity are fine.

    Raises:
        InvalidRequestError: naming the value.
    """
    if timeout_s is not None and not timeout_s > 0:
        raise InvalidRequestError(f"timeout_s: expected a number above 0, got {timeout_s}")


class RetryState:
    """The deadline of one call and what is left of its retries.

    Only what never began is tried again: the server could not be reached or refused, and nothing had been received.
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
        return DeadlineError(f"{self.what}: no complete answer within {self._timeout_s:g} s")


class StreamReader(Generic[M]):
    """One stream, checked: no gap, the report once and last, then the final response."""

    def __init__(self, spec: wire.StreamSpec[M], *, events: bool = True) -> None:
        self._spec, self._events = spec, events
        self._name = spec.model.name
        self.received = False
        """Whether the server has answered with anything but a refusal."""
        self._next = dict.fromkeys(spec.payloads, 0)
        self._main = next(iter(spec.payloads))
        self._sizes: dict[str, tuple[int, ...]] = {}
        self._reported = False
        self._final = False

    def feed(self, response: Any) -> list[M]:
        """The messages of the next response.

        Raises:
            HeartvoiceError: the server's error, or an EngineError if the stream breaks the contract.
        """
        messages, final = wire.decode_stream(response, self._spec)
        self.received = True
        if self._final:
            raise EngineError(f"{self._name}: got a response after the final one")
        for message in messages:
            self._check(message)
        self._final = final
        return messages if self._events else [m for m in messages if not isinstance(m, Event)]

    def _check(self, message: M) -> None:
        if self._reported:
            raise EngineError(f"{self._name}: got {type(message).__name__} after the report")
        if isinstance(message, Chunk):
            self._advance(message)
        elif isinstance(message, Report | StemsReport):
            self._reported = True
            self._check_report(message)

    def _advance(self, chunk: Chunk) -> None:
        name, sizes = chunk.output, chunk.payload.shape[:-1]
        if chunk.start != self._next[name]:
            raise EngineError(f"{name}: expected the chunk that begins at {self._next[name]}, got START {chunk.start}")
        if self._sizes.setdefault(name, sizes) != sizes:
            raise EngineError(f"{name}: expected {list(self._sizes[name])} as before, got {list(sizes)}")
        self._next[name] += chunk.length

    def _check_report(self, report: Report | StemsReport) -> None:
        facts = {"samples": self._next[self._main], "sample_rate_hz": self._spec.sample_rate_hz}
        for name, fact in facts.items():
            if report.raw.get(name, fact) != fact:
                got = f"the report says {report.raw[name]} {name}"
                raise EngineError(f"{self._name}: {got}, got {fact}")
        for name in self._spec.parallel:
            if self._next[name] != self._next[self._main]:
                expected = f"{self._next[self._main]} samples in all, as of {self._main}"
                raise EngineError(f"{name}: expected {expected}, got {self._next[name]}")
        if isinstance(report, StemsReport) and self._sizes:
            n_stems = self._sizes[self._main][0]
            if len(report.sources) != n_stems:
                raise EngineError(f"{self._name}: the report names {len(report.sources)} sources, got {n_stems} stems")

    def finish(self) -> None:
        """Call at the stream's end.

        Raises:
            EngineError: it ended early.
        """
        got = self._next[self._main]
        needed = ((self._main.lower(), got), ("report", self._reported), ("final response", self._final))
        missing = [name for name, present in needed if not present]
        if missing:
            ended = f"the stream ended after {got} samples without its {' and '.join(missing)}"
            raise EngineError(f"{self._name}: {ended}")


class StallGuard:
    """Ends a blocking read that gets nothing for `limit_s`; the time between reads is the caller's and not counted."""

    def __init__(self, cancel: Callable[[], object], limit_s: float) -> None:
        self.stalled = False
        self._cancel, self._limit_s = cancel, limit_s
        self._since: float | None = None
        self._closed = threading.Event()
        if math.isfinite(limit_s):
            threading.Thread(target=self._watch, name="heartvoice-stall", daemon=True).start()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The block waits for the server."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def close(self) -> None:
        """End the watch."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self._limit_s / 4)):
            since = self._since
            if since is not None and time.monotonic() - since > self._limit_s:
                self.stalled = True
                self._cancel()
                return
