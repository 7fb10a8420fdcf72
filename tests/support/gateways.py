"""A gateway of this process, in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from heartvoice.gateway.options import GatewayOptions
from heartvoice.gateway.server import Gateway


class RunningGateway:
    """What a test needs of it."""

    def __init__(self, gateway: Gateway, loop: asyncio.AbstractEventLoop) -> None:
        self.gateway, self._loop = gateway, loop
        self.url = f"127.0.0.1:{gateway.port}"

    def stop(self, drain_s: float) -> None:
        """Stop, and wait for it."""
        asyncio.run_coroutine_threadsafe(self.gateway.stop(drain_s), self._loop).result(30)

    def settle(self) -> None:
        """Count and log what has ended; SETTLE_S later the gateway would do so itself."""

        async def settle() -> None:
            self.gateway.metrics.settle()

        asyncio.run_coroutine_threadsafe(settle(), self._loop).result(10)

    def metric(self, name: str, **labels: str) -> float:
        """A sample of its metrics, 0 if it is not there."""
        self.settle()
        value: Any = self.gateway.metrics.registry.get_sample_value(f"heartvoice_gateway_{name}", labels)
        return float(value or 0.0)


@contextmanager
def running(upstream: str, **options: Any) -> Iterator[RunningGateway]:
    """A gateway on a free port in front of `upstream`; `options` are those of `GatewayOptions`."""
    chosen: dict[str, Any] = {"listen": "127.0.0.1:0", "metrics_port": 0} | options
    gateway = Gateway(GatewayOptions(upstream=upstream, **chosen))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(gateway.start(), loop).result(10)
        yield RunningGateway(gateway, loop)
    finally:
        asyncio.run_coroutine_threadsafe(gateway.stop(0.0), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
