"""Receipts: who calls a stream inside the server says when it has taken a response, and only then is the next sent.

Without them Triton's stub stands still for ever (2.51, seen with gdb), and needs three threads of the caller for it.
One waits for a response, is woken by it, and holds its stream's lock until it has the interpreter's. Triton's own
brings a second response of that stream: it holds the lock of the list of streams and waits for the stream's. A third
has begun another stream: it holds the interpreter's lock and waits for the list's. With one response of a stream on
its way at a time, the second of them never waits.

A receipt is a byte over a socket without a file, which nothing can leave behind, and which tells of the other's death.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from contextlib import suppress

_PREFIX = b"\0heartvoice-receipts-"  # the leading zero: in no folder (unix(7), abstract)
_CREDENTIALS = "iII"  # pid, uid, gid: unix(7), SO_PEERCRED


class AckSender:
    """The caller's side of one stream. Make it before the call; a context manager."""

    def __init__(self, job_id: str) -> None:
        self._waiting = socket.socket(socket.AF_UNIX)
        self._waiting.bind(_PREFIX + job_id.encode())
        self._waiting.listen(4)
        self._waiting.setblocking(False)
        self._sender: socket.socket | None = None

    def __enter__(self) -> AckSender:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing more will be taken: a sender that waits goes on."""
        self._waiting.close()
        if self._sender is not None:
            self._sender.close()

    def take(self) -> None:
        """Say that a response has come. Senders connect before their first one."""
        with suppress(OSError):  # it has died, or does not ask for receipts
            while self._sender is None:
                self._sender = _own(self._waiting.accept()[0])
            self._sender.send(b"1")


def _own(peer: socket.socket) -> socket.socket | None:
    """The connection, if it is of this user: names of such sockets can be read by all."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(_CREDENTIALS))
    if struct.unpack(_CREDENTIALS, credentials)[1] == os.geteuid():
        return peer
    peer.close()
    return None


class AckReceiver:
    """The sender's side of one stream. Not safe in several threads, but for `wait`."""

    def __init__(self, job_id: bytes) -> None:
        self._missing = 0
        self._socket: socket.socket | None = socket.socket(socket.AF_UNIX)
        self._poll = select.poll()
        try:
            self._socket.setblocking(False)  # before: a crowd of strangers at its door must not hold us up
            self._socket.connect(_PREFIX + job_id)
            self._poll.register(self._socket, select.POLLIN)
        except OSError:
            self.close()  # a caller that gives none

    def sent(self) -> None:
        """A response is on its way."""
        self._missing += 1

    def complete(self) -> bool:
        """Whether all that was sent has been taken, or will not be: the caller has ended."""
        while self._socket is not None and self._missing:
            try:
                came = len(self._socket.recv(self._missing))
            except BlockingIOError:
                return False
            except OSError:
                came = 0
            if not came:
                self.close()
            self._missing -= came
        return True

    def wait(self, seconds: float) -> None:
        """Wait for a receipt, or for the caller's end."""
        with suppress(OSError):
            self._poll.poll(seconds * 1000)

    def close(self) -> None:
        """No more of them are needed."""
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()
