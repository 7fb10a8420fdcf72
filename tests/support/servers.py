"""Real servers for tests that do not check the shutdown."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from heartvoice.server.options import ServerOptions
from heartvoice.server.server import EmbeddedServer, free_port


def end(server: EmbeddedServer) -> None:
    """Kill the server and clean up: Triton's own shutdown waits for seconds to unload."""
    if server.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
    server.stop()


@contextmanager
def running_server(root: Path, **options: object) -> Iterator[EmbeddedServer]:
    """Start a server on free ports; `options` are those of `ServerOptions`."""
    server = EmbeddedServer(ServerOptions(root, free_port(), free_port(), **options))  # type: ignore[arg-type]
    server.start()
    try:
        yield server
    finally:
        end(server)
