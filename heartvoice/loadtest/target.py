"""The server under load, started here or already running: its processes' memory and its metrics."""

from __future__ import annotations

import os
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import grpc
import psutil
from tritonclient.grpc import service_pb2, service_pb2_grpc

from heartvoice.client import Client
from heartvoice.client.connection import Connection
from heartvoice.client.wire import error_from_status, error_from_text
from heartvoice.contracts.models import MODELS
from heartvoice.errors import InvalidRequestError
from heartvoice.server.options import ServerOptions
from heartvoice.server.server import EmbeddedServer, free_port
from heartvoice.serving import process_registry
from heartvoice.shm_regions import HEADER, find_key

SAMPLE_S = 0.25
TIMEOUT_S = 300.0
CHECK_S = 60.0
SERVER = "server"
Headers = Sequence[tuple[str, str]]
Samples = Mapping[tuple[str, str], float]
"""Values of a metrics page by metric and model."""
_LINE = re.compile(r"^(\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)
_MODEL = re.compile(r'model="([^"]*)"')


def parse_metrics(page: str) -> dict[tuple[str, str], float]:
    """Parse a metrics page into values by metric and model, summed over all other labels."""
    found: dict[tuple[str, str], float] = {}
    for name, labels, value in _LINE.findall(page):
        model = _MODEL.search(labels)
        if model and "le=" not in labels:
            key = name, model[1]
            found[key] = found.get(key, 0.0) + float(value)
    return found


def queue_ms(before: Samples, after: Samples) -> dict[str, float]:
    """Mean waiting of each model's requests between two metrics pages.

    It covers Triton's queue, the job queue, and the wait for a slot of the language model.
    """

    def grew(name: str, model: str) -> float:
        return after.get((name, model), 0.0) - before.get((name, model), 0.0)

    waits = {}
    for model in MODELS:
        executed = grew("nv_inference_exec_count", model) or grew("nv_inference_count", model)
        parts = [
            (grew("nv_inference_queue_duration_us", model) / 1e3, grew("nv_inference_count", model) or executed),
            (grew("heartvoice_jobs_queue_seconds_total", model) * 1e3, grew("heartvoice_jobs_started_total", model)),
            (grew("heartvoice_lm_queue_seconds_sum", model) * 1e3, grew("heartvoice_lm_queue_seconds_count", model)),
        ]
        if any(count for _, count in parts):
            waits[model] = sum(total / count for total, count in parts if count)
    return waits


class Memory(threading.Thread):
    """Samples the resident bytes of processes several times a second; keeps first value and peak."""

    def __init__(self, pids: Callable[[], dict[str, int]]) -> None:
        super().__init__(name="bench-memory", daemon=True)
        self._pids, self._done = pids, threading.Event()
        self._lock = threading.Lock()
        self.first: dict[str, int] = {}
        self.peak: dict[str, int] = {}
        self._point: dict[str, int] = {}
        self.look()

    def look(self) -> None:
        """Sample once."""
        for name, pid in self._pids().items():
            with suppress(psutil.Error):
                size = int(psutil.Process(pid).memory_info().rss)
                with self._lock:
                    self.first.setdefault(name, size)
                    for peaks in (self.peak, self._point):
                        peaks[name] = max(size, peaks.get(name, 0))

    def new_point(self) -> None:
        """Start a new `point`."""
        with self._lock:
            self._point = {}
        self.look()

    def point(self) -> dict[str, int]:
        """Peak of each process since `new_point`."""
        self.look()
        with self._lock:
            return dict(self._point)

    def run(self) -> None:
        """Sample until stopped."""
        while not self._done.wait(SAMPLE_S):
            self.look()

    def stop(self) -> None:
        """End the thread."""
        self._done.set()


@dataclass
class ServerStats:
    """Statistics of a server for one measured point."""

    queues_ms: dict[str, float] = field(default_factory=dict)
    rss: dict[str, int] = field(default_factory=dict)
    refused: float = 0.0

    def facts(self, model: str) -> dict[str, Any]:
        """Facts for a row: queueing of `model`, of its inner calls, and total memory."""
        inner = {name: wait for name, wait in self.queues_ms.items() if name != model and wait >= 1.0}
        own = {"queue_ms": self.queues_ms.get(model)} if self.queues_ms else {}
        return own | {"inner_queues_ms": inner} | ({"rss_mb": sum(self.rss.values()) / 1e6} if self.rss else {})


class Security(TypedDict, total=False):
    """TLS and token of a connection; `Client` documents the fields."""

    tls: bool
    root_certificates: Path | None
    private_key: Path | None
    certificate_chain: Path | None
    token_file: Path | None


@dataclass
class Target:
    """Destination of the requests."""

    url: str
    metrics_url: str | None
    memory: Memory | None
    headers: Headers = ()
    exposed: bool = True
    """True if headers may appear on a command line, which every user of the machine can read."""
    security: Security = field(default_factory=Security)
    """TLS and token, as of a client."""

    def client(self, **options: Any) -> Client:
        """A client without retries, so that refusals count."""
        return Client(self.url, metadata=self.headers, retries=0, **self.security, **options)

    @property
    def connection(self) -> Connection:
        """The settings of a plain connection.

        Raises:
            InvalidRequestError: they contradict each other, or a file cannot be read.
        """
        return Connection(self.url, metadata=self.headers, **self.security)

    @property
    def metadata(self) -> Headers:
        """All headers, with that of the token."""
        return self.connection.metadata

    @property
    def port(self) -> int:
        """Port of gRPC."""
        return int(self.url.rpartition(":")[2])

    def ask(self, message: Any, *, streamed: bool) -> float:
        """Send one raw request; return the seconds to its last response.

        Raises:
            HeartvoiceError: the request failed.
        """
        began = time.perf_counter()
        with self._channel() as channel:
            stub, headers = service_pb2_grpc.GRPCInferenceServiceStub(channel), self.metadata
            try:
                if streamed:
                    for response in stub.ModelStreamInfer(iter([message]), metadata=headers, timeout=TIMEOUT_S):
                        if response.error_message:
                            raise error_from_text(response.error_message)
                else:
                    stub.ModelInfer(message, metadata=headers, timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                raise error_from_status(error.code().name, error.details() or "") from error
        return time.perf_counter() - began

    def check(self) -> None:
        """Ask the server what it is.

        Raises:
            HeartvoiceError: it cannot be reached, or does not let this caller in.
        """
        attempts = self.connection.attempts("bench", CHECK_S)
        with self._channel() as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            try:
                stub.ServerMetadata(service_pb2.ServerMetadataRequest(), metadata=self.metadata, timeout=CHECK_S)
            except grpc.RpcError as error:
                raise attempts.failure(error.code().name, error.details() or "") from error

    def _channel(self) -> Any:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        credentials = self.connection.credentials
        if credentials is None:
            return grpc.insecure_channel(self.url, options)
        return grpc.secure_channel(self.url, credentials, options)

    def perf_headers(self, *, shared: bool) -> list[tuple[str, str]]:
        """Return the headers for perf_analyzer.

        Raises:
            InvalidRequestError: a secret would become visible.
        """
        headers = self.metadata
        if headers and not self.exposed:
            raise InvalidRequestError(
                "headers: perf_analyzer takes them on its command line only; see --expose-headers"
            )
        key = find_key(self.port) if shared else None
        return [*headers, *([(HEADER, key)] if key else [])]

    def perf_security(self) -> list[str]:
        """Return the TLS options for perf_analyzer."""
        if self.connection.credentials is None:
            return []
        files = (
            ("root-certifications", self.security.get("root_certificates")),
            ("private-key", self.security.get("private_key")),
            ("certificate-chain", self.security.get("certificate_chain")),
        )
        named = [(f"--ssl-grpc-{option}-file", str(path)) for option, path in files if path is not None]
        return ["--ssl-grpc-use-ssl", *(part for pair in named for part in pair)]

    def metrics(self) -> Samples:
        """Read the server's metrics; empty if unavailable."""
        if self.metrics_url is None:
            return {}
        with urllib.request.urlopen(self.metrics_url, timeout=10) as page:  # noqa: S310 (the operator's URL)
            return parse_metrics(page.read().decode())

    @contextmanager
    def watch(self) -> Iterator[ServerStats]:
        """Yield the server's statistics for the block; they are complete at its end."""
        server_stats, before = ServerStats(), self.metrics()
        if self.memory is not None:
            self.memory.new_point()
        yield server_stats
        after = self.metrics()
        server_stats.queues_ms = queue_ms(before, after)
        name = "heartvoice_jobs_refused_total"
        server_stats.refused = sum(value - before.get(key, 0.0) for key, value in after.items() if key[0] == name)
        if self.memory is not None:
            server_stats.rss = self.memory.point()


@contextmanager
def own_server(repository: Path) -> Iterator[Target]:
    """Start a server for the block, with shared memory enabled for this process."""
    options = ServerOptions(repository, free_port(), free_port(), shared_memory=True)
    with EmbeddedServer(options) as server, _memory(lambda: {SERVER: server.pid, **server.stub_pids()}) as memory:
        yield Target(server.url, server.metrics_url, memory)


@contextmanager
def running_server(target: Target) -> Iterator[Target]:
    """Use a running server; memory is measured if it is local and this user's.

    Raises:
        InvalidRequestError: its TLS options contradict each other, or a file cannot be read.
        HeartvoiceError: it cannot be reached, or does not let this caller in.
    """
    target.check()
    pids = find_processes(target.port) if target.url.startswith(("127.", "localhost:")) else None
    with _memory(pids) as memory:
        yield replace(target, memory=memory)


def find_processes(port: int) -> Callable[[], dict[str, int]] | None:
    """Return a function that lists a local server's processes; None if it is another user's."""
    for process in psutil.process_iter(["pid", "uids", "name"]):
        with suppress(psutil.Error):
            if process.info["name"] != "tritonserver" or process.info["uids"].real != os.getuid():
                continue
            if any(c.laddr.port == port for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN):
                return _processes(process.pid, process.environ().get(process_registry.VARIABLE))
    return None


def _processes(server: int, run: str | None) -> Callable[[], dict[str, int]]:
    def now() -> dict[str, int]:
        found = {name: process_registry.serving_pid(name, Path(run)) for name in MODELS} if run else {}
        return {SERVER: server, **{name: pid for name, pid in found.items() if pid is not None}}

    return now


@contextmanager
def _memory(pids: Callable[[], dict[str, int]] | None) -> Iterator[Memory | None]:
    if pids is None:
        yield None
        return
    memory = Memory(pids)
    memory.start()
    try:
        yield memory
    finally:
        memory.stop()


def read_headers(text: str, source: str) -> list[tuple[str, str]]:
    """Parse `name: value` lines into headers.

    Raises:
        InvalidRequestError: a line has another form; the message omits it, because it may be a secret.
    """
    headers = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            name, colon, value = line.partition(":")
            if not colon or not name.strip() or not value.strip():
                raise InvalidRequestError(f"{source}: line {number}: expected `name: value`")
            headers.append((name.strip().lower(), value.strip()))
    return headers
