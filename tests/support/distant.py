"""A way to a server that delays what it carries."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_BLOCK = 2**18


@contextmanager
def distant(url: str, delay_s: float) -> Iterator[str]:
    """Yield an address from which connections to `url` take `delay_s` more in each direction."""
    host, port = url.rsplit(":", 1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_connect, args=(listener, (host, int(port)), delay_s), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def _connect(listener: socket.socket, server: tuple[str, int], delay_s: float) -> None:
    while True:
        try:
            caller, _ = listener.accept()
        except OSError:
            return  # closed
        there = socket.create_connection(server)
        for source, target in ((caller, there), (there, caller)):
            blocks = queue.Queue[tuple[float, bytes]]()
            threading.Thread(target=_receive, args=(source, blocks), daemon=True).start()
            threading.Thread(target=_send, args=(target, blocks, delay_s), daemon=True).start()


def _receive(source: socket.socket, blocks: queue.Queue[tuple[float, bytes]]) -> None:
    block = b"-"
    while block:
        try:
            block = source.recv(_BLOCK)
        except OSError:
            block = b""
        blocks.put((time.monotonic(), block))


def _send(target: socket.socket, blocks: queue.Queue[tuple[float, bytes]], delay_s: float) -> None:
    while True:
        arrived, block = blocks.get()
        time.sleep(max(0.0, arrived + delay_s - time.monotonic()))
        try:
            if not block:
                target.close()
                return
            target.sendall(block)
        except OSError:
            return
