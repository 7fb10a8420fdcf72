"""How much later does the server hear that a caller has left, because of a gateway?

Triton's models look at it every 20 ms, which hides milliseconds. So a bare gRPC server stands behind the proxies here,
which notes when a call ends on its side; its clock is the caller's.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from heartvoice.server.server import free_port

SETTLE_S = 0.01
"""From the first response to the cancellation: by then the caller waits for the second."""


class Endings(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers a stream once, and then notes the time of its end."""

    def __init__(self) -> None:
        self.at: queue.SimpleQueue[float] = queue.SimpleQueue()

    def service(self, details: Any) -> Any:
        """Every stream is answered alike; other methods do not exist."""
        if not details.method.endswith("/ModelStreamInfer"):
            return None
        return grpc.stream_stream_rpc_method_handler(self._stream)

    def _stream(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        ended = threading.Event()

        def note() -> None:
            self.at.put(time.perf_counter())
            ended.set()

        context.add_callback(note)
        next(requests)
        yield service_pb2.ModelStreamInferResponse().SerializeToString()
        ended.wait()


@contextmanager
def bare_server() -> Iterator[tuple[str, Endings]]:
    """A server that makes nothing: its address, and when its calls ended."""
    endings, address = Endings(), f"127.0.0.1:{free_port()}"
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(endings,))
    server.add_insecure_port(address)
    server.start()
    try:
        yield address, endings
    finally:
        server.stop(None).wait()


def cancel(start: Callable[[], Any], endings: Endings) -> float:
    """Cancel a stream that waits for its second response; returns seconds until the server heard of it."""
    call = start()
    next(call)
    time.sleep(SETTLE_S)
    began = time.perf_counter()
    call.cancel()
    return endings.at.get(timeout=10.0) - began
