"""Runs a gateway as an asyncio server."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from prometheus_client import start_http_server

from heartvoice.contracts.constants import CONNECT_TIMEOUT_S
from heartvoice.contracts.models import MODELS, with_voice_ids
from heartvoice.errors import InvalidRequestError, ModelUnavailableError
from heartvoice.gateway.access_log import Metrics
from heartvoice.gateway.authentication import ANONYMOUS, Tokens, certificate_name
from heartvoice.gateway.options import GatewayOptions
from heartvoice.gateway.proxy import Proxy
from heartvoice.gateway.registered_voices import RegisteredVoices
from heartvoice.pem_files import check_pair, check_pem, why_invalid_now

log = logging.getLogger(__name__)

TOKENS_POLL_S = 2.0
PING_S, PING_TIMEOUT_S = 30.0, 10.0
"""A vanished caller is detected within the sum."""
_MALLOC = {-1: 2**27, -2: 2**26, -3: 2**25}
"""glibc's M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD (its maximum)."""
MAX_CALLS = 2000
"""Limit for all callers together."""
_IDENTITY_ONLY = 1
"""Compressed messages are refused: a small one may unpack into gigabytes, and audio hardly compresses."""


class Gateway:
    """One gateway. `start` and `stop` belong to one event loop."""

    def __init__(self, options: GatewayOptions) -> None:
        """Read the callers' file.

        Raises:
            InvalidRequestError: the file is invalid.
        """
        self.options = options
        self.tokens = Tokens(options.tokens) if options.tokens else None
        self.metrics = Metrics()
        self.port = 0
        self._server: Any = None
        self._channel: Any = None
        self._proxy: Proxy | None = None
        self._voices = RegisteredVoices(options.registry) if options.registry else None
        self._tasks: list[asyncio.Task[None]] = []
        self._metrics_server: Any = None

    async def start(self) -> None:
        """Start listening.

        Raises:
            ModelUnavailableError: a port is in use.
            InvalidRequestError: a certificate cannot be read; there is no registry, or it lacks its keys.
            RegistryError: the registry is not what was written.
        """
        options = self.options
        models = {name: MODELS[name] for name in options.models}
        if self._voices is not None:
            await self._voices.open()
            models = {name: with_voice_ids(model) for name, model in models.items()}
        self._channel = grpc.aio.insecure_channel(options.upstream, _upstream_options())
        self._proxy = Proxy(
            self._channel, self._authenticate(), models, options.limits, self.metrics, self._voices,
            registered_only=options.require_registered_voices,
        )  # fmt: skip
        self._server = grpc.aio.server(
            handlers=(self._proxy,), options=_server_options(options), maximum_concurrent_rpcs=MAX_CALLS
        )
        self.port = self._bind()
        if options.metrics_port:
            self._metrics_server = self._serve_metrics(options.metrics_port)
        await self._server.start()
        self._tasks = [asyncio.create_task(self._proxy.watch())]
        if self.tokens is not None:
            self._tasks.append(asyncio.create_task(self._follow_tokens(self.tokens)))

    async def stop(self, drain_s: float | None = None) -> None:
        """Refuse new calls, let running calls finish within `drain_s` (default: the options'), then end them."""
        for task in self._tasks:
            task.cancel()
        if self._proxy is not None:
            self._proxy.answers.stop()
        if self._server is not None:
            await self._server.stop(self.options.drain_s if drain_s is None else drain_s)
        if self._proxy is not None:
            await self._proxy.wait_drained()
        self.metrics.settle()
        if self._voices is not None:
            await self._voices.close()
        if self._channel is not None:
            await self._channel.close()
        if self._metrics_server is not None:
            await asyncio.to_thread(self._metrics_server.shutdown)
            self._metrics_server.server_close()

    def reload(self) -> None:
        """Read the callers' file again, if there is one."""
        if self.tokens is not None:
            self.tokens.reload(forced=True)

    @property
    def n_live(self) -> int:
        """Calls in progress."""
        return self._proxy.n_live if self._proxy else 0

    def _bind(self) -> int:
        options = self.options
        try:
            if options.certificate is None:
                port: int = self._server.add_insecure_port(options.listen)
            else:
                port = self._server.add_secure_port(options.listen, _credentials(options))
        except RuntimeError as error:
            raise ModelUnavailableError(f"--listen: cannot listen on {options.listen}: {error}") from error
        return port

    def _serve_metrics(self, port: int) -> Any:
        try:
            return start_http_server(port, "127.0.0.1", self.metrics.registry)[0]
        except OSError as error:
            raise ModelUnavailableError(f"--metrics-port: port {port} is not free ({error.strerror})") from error

    def _authenticate(self) -> Callable[[Any], str]:
        tokens = self.tokens
        if tokens is not None:
            return lambda context: tokens.caller(context.invocation_metadata() or ())
        if self.options.client_roots is not None:
            return lambda context: certificate_name(context.auth_context())
        return lambda _context: ANONYMOUS

    @staticmethod
    async def _follow_tokens(tokens: Tokens) -> None:
        while True:
            await asyncio.sleep(TOKENS_POLL_S)
            tokens.reload()


def _server_options(options: GatewayOptions) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # a second gateway on this port must fail
        ("grpc.max_receive_message_length", options.limits.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_ONLY),
        ("grpc.max_concurrent_streams", 100),
        ("grpc.max_allowed_incoming_connections", options.connections),
        ("grpc.max_connection_idle_ms", 300_000),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.keepalive_time_ms", round(PING_S * 1000)),
        ("grpc.keepalive_timeout_ms", round(PING_TIMEOUT_S * 1000)),
        ("grpc.http2.ping_timeout_ms", round(PING_TIMEOUT_S * 1000)),  # otherwise a minute, in spite of the line above
        ("grpc.http2.max_pings_without_data", 0),  # a song may be silent for long
        # a caller may ping every 10 s
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def _upstream_options() -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_retries", 0),  # the caller chooses
        ("grpc.enable_http_proxy", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", round(CONNECT_TIMEOUT_S * 1000)),
        ("grpc.max_reconnect_backoff_ms", 2000),
    ]


def _credentials(options: GatewayOptions) -> Any:
    """Return TLS credentials; changed certificate files are read again for the next connection."""
    paths = [path for path in (options.private_key, options.certificate, options.client_roots) if path is not None]
    read = _read_certificates(options)
    versions = _versions(paths)

    def current() -> Any:
        nonlocal versions
        try:
            found = _versions(paths)
            if found == versions:
                return None
            fresh = _read_certificates(options)
        except (InvalidRequestError, OSError) as error:
            log.error("certificates stay as they were: %s", error)
            return None
        versions = found
        log.info("read the certificates again")
        return fresh

    return grpc.dynamic_ssl_server_credentials(read, current, options.client_roots is not None)


def _versions(paths: list[Path]) -> list[tuple[int, int]]:
    return [(path.stat().st_ino, path.stat().st_mtime_ns) for path in paths]


def _read_certificates(options: GatewayOptions) -> Any:
    if options.private_key is None or options.certificate is None:
        raise InvalidRequestError("--certificate and --private-key: expected both")
    key, chain = options.private_key, options.certificate
    try:
        if key.stat().st_mode & 0o007:
            log.warning("%s: every user of this host can read the private key", key)
        pair = (key.read_bytes(), chain.read_bytes())
        roots = options.client_roots.read_bytes() if options.client_roots else None
    except OSError as error:
        raise InvalidRequestError(f"certificate: cannot read {error.filename!r}: {error.strerror}") from error
    check_pem("--private-key", pair[0], "PRIVATE KEY", str(key))
    check_pem("--certificate", pair[1], "CERTIFICATE", str(chain))
    if roots is not None:
        check_pem("--client-roots", roots, "CERTIFICATE", str(options.client_roots))
    check_pair("--private-key", key, chain)  # else gRPC says that the port cannot be bound
    if why := why_invalid_now(key, chain):
        log.warning("%s: the certificate %s: callers will refuse it; renew it, it is read again", chain, why)
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=roots)


def keep_freed_memory() -> None:
    """Let the allocator keep the memory of large requests: up to 256 MB more resident memory.

    Returning it and faulting it in again is a large part of the work of forwarding a large request. No effect without
    glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in _MALLOC.items():
            mallopt(option, value)


async def run(options: GatewayOptions, announce: Callable[[Gateway], None]) -> None:
    """Run a gateway until SIGINT or SIGTERM; a second signal ends running calls. SIGHUP rereads the tokens."""
    keep_freed_memory()
    gateway = Gateway(options)
    loop = asyncio.get_running_loop()
    asked, again = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (again if asked.is_set() else asked).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    loop.add_signal_handler(signal.SIGHUP, gateway.reload)
    try:
        await gateway.start()
        announce(gateway)
        await asked.wait()
        log.info("stopping: %d calls may finish within %g s", gateway.n_live, options.drain_s)
    finally:
        stopping = asyncio.create_task(gateway.stop())
        hurry = asyncio.create_task(again.wait())
        await asyncio.wait((stopping, hurry), return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            await gateway.stop(0.0)
        hurry.cancel()
        with suppress(asyncio.CancelledError):
            await stopping
