"""By how much does a gateway delay the server's notice of a cancelled call?

Triton's models check every 20 ms, which hides milliseconds. So the proxies here forward to a bare gRPC server that
records the end of each call; server and client share a clock.
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
"""Time from the first response to the cancellation; the client then waits for the second response."""


class EndTimes(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Sends one response per stream and records the time of the stream's end."""

    def __init__(self) -> None:
        self.at: queue.SimpleQueue[float] = queue.SimpleQueue()

    def service(self, details: Any) -> Any:
        """Handle all streams alike; other methods do not exist."""
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
def bare_server() -> Iterator[tuple[str, EndTimes]]:
    """Start a server without models; yield its address and the end times of its calls."""
    endings, address = EndTimes(), f"127.0.0.1:{free_port()}"
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(endings,))
    server.add_insecure_port(address)
    server.start()
    try:
        yield address, endings
    finally:
        server.stop(None).wait()


def cancel(start: Callable[[], Any], endings: EndTimes) -> float:
    """Cancel a stream that waits for its second response; return the seconds until the server noticed."""
    call = start()
    next(call)
    time.sleep(SETTLE_S)
    began = time.perf_counter()
    call.cancel()
    return endings.at.get(timeout=10.0) - began
