"""Starts programs during gRPC calls, as a supervisor does, and prints how many failed to start."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from heartvoice.server.processes import start_with_parent

STARTS = 250


class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers every call by a short stream."""

    def service(self, handler_call_details: Any) -> Any:
        return grpc.unary_stream_rpc_method_handler(self.answer)

    def answer(self, request: bytes, context: Any) -> Iterator[bytes]:
        for _ in range(10):
            yield bytes(1000)
            time.sleep(0.002)


def main() -> None:
    """Run four clients that call continuously."""
    server = grpc.server(ThreadPoolExecutor(8), handlers=[Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    done = threading.Event()

    def call() -> None:
        while not done.is_set():
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                list(channel.unary_stream("/any/method")(b""))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    failed = sum(start_with_parent(["/bin/true"]).wait() != 0 for _ in range(STARTS))
    done.set()
    for caller in callers:
        caller.join()
    server.stop(0)
    print(failed)


if __name__ == "__main__":
    main()
