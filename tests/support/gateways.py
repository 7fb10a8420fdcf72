"""A gateway in a thread of this process, with a separate event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2_grpc

from heartvoice.gateway.options import GatewayOptions
from heartvoice.gateway.server import Gateway

SERVING, NOT_SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"
"""Answers of the health protocol."""
LYRICS = {"lyrics": np.array([b"la la"], object)}
"""Inputs of `song`; those of `render` are `FILE`."""
FILE = LYRICS | {"format": np.array([b"wav"], object)}


class RunningGateway:
    """A running gateway, with the operations that tests need."""

    def __init__(self, gateway: Gateway, loop: asyncio.AbstractEventLoop) -> None:
        self.gateway, self._loop = gateway, loop
        self.url = f"127.0.0.1:{gateway.port}"

    def stop(self, drain_s: float) -> None:
        """Stop the gateway and wait until it has stopped."""
        asyncio.run_coroutine_threadsafe(self.gateway.stop(drain_s), self._loop).result(60)

    def settle(self) -> None:
        """Count and log ended calls now; the gateway itself does so SETTLE_S later."""

        async def settle() -> None:
            self.gateway.metrics.settle()

        asyncio.run_coroutine_threadsafe(settle(), self._loop).result(60)

    def metric(self, name: str, **labels: str) -> float:
        """Return a sample of its metrics, 0 if missing."""
        self.settle()
        value: Any = self.gateway.metrics.registry.get_sample_value(f"heartvoice_gateway_{name}", labels)
        return float(value or 0.0)


@contextmanager
def running(upstream: str, **options: Any) -> Iterator[RunningGateway]:
    """Start a gateway on a free port for `upstream`; `options` are those of `GatewayOptions`."""
    chosen: dict[str, Any] = {"listen": "127.0.0.1:0", "metrics_port": 0} | options
    gateway = Gateway(GatewayOptions(upstream=upstream, **chosen))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(gateway.start(), loop).result(60)
        yield RunningGateway(gateway, loop)
    finally:
        asyncio.run_coroutine_threadsafe(gateway.stop(0.0), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()


class Stub:
    """The protocol's own stub, to a gateway."""

    def __init__(self, url: str, *options: tuple[str, Any]) -> None:
        self.channel = grpc.insecure_channel(url, [("grpc.max_receive_message_length", -1), *options])
        self.calls = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def __enter__(self) -> Stub:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def refused(self, method: str, message: Any, **options: Any) -> grpc.RpcError:
        """Make a call that must fail, and return its error."""
        with pytest.raises(grpc.RpcError) as caught:
            getattr(self.calls, method)(message, timeout=10, **options)
        return caught.value


def encoded(service: str) -> bytes:
    """A request of the health protocol."""
    name = service.encode()
    return bytes([0x0A, len(name)]) + name if name else b""


@contextmanager
def watching(url: str, service: str = "") -> Iterator[Iterator[bytes]]:
    """Watch the health of a service; the statuses come as they change."""
    with grpc.insecure_channel(url) as channel:
        call = channel.unary_stream("/grpc.health.v1.Health/Watch")(encoded(service), timeout=200)
        yield call
        call.cancel()
