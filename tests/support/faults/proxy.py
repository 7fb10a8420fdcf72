"""A TCP forwarder that can stop without closing its connections, like a vanished peer."""

from __future__ import annotations

import contextlib
import socket
import threading


class Forwarder:
    """Forwards connections to a loopback port until `cut`."""

    def __init__(self, target: str, *, host: str = "127.0.0.1") -> None:
        """`target` is host:port; `host` is where to listen."""
        name, _, port = target.rpartition(":")
        self._target = (name, int(port))
        self._listener = socket.create_server((host, 0))
        self._sockets: list[socket.socket] = [self._listener]
        self._cut = threading.Event()
        self.url = f"{host}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [caller, server]
                for source, sink in ((caller, server), (server, caller)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._cut.is_set():
                    threading.Event().wait(3600)  # what was taken is lost, and no more is taken
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """Stop forwarding: neither bytes nor ends of connections pass any more."""
        self._cut.set()

    def close(self) -> None:
        """Close all sockets."""
        for each in self._sockets:
            each.close()
