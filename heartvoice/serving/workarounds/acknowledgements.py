"""Back-pressure for inner streams: each response is sent after the caller acknowledged the previous one.

Fault (Triton 2.51): the stub of a calling model can deadlock while it reads several streams. Three of its threads wait
    for one another's locks: the stream's, the list of streams' and the interpreter's (seen with gdb).
Does: sends one response of a stream at a time, so that Triton's thread never waits for the stream's lock. An
    acknowledgement is one byte over an abstract Unix socket, which leaves no file and reports the peer's death.
Test: `test_a_response_is_missing_until_it_is_taken`, `test_streams_inside_the_server_do_not_stop_each_other`
Delete when: the stub does not hold a stream's lock while it waits for the interpreter's.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress

from heartvoice.arrays import Array
from heartvoice.serving.workarounds.array_frames import read_frame, write_frame

_PREFIX = b"\0heartvoice-receipts-"  # a leading zero: an abstract name, not a file (unix(7))
MORE_INPUTS = b"+"
"""End of the job id of a call whose inputs come in part over its socket."""
_CREDENTIALS = "iII"  # pid, uid, gid: unix(7), SO_PEERCRED


class AckSender:
    """The caller's side of one stream, as a context manager. It must exist before the call."""

    def __init__(self, job_id: str, inputs: dict[str, Array] | None = None) -> None:
        """Listen. `inputs` are sent in a thread as soon as the callee has connected (see `array_frames`).

        The dictionary is emptied then: the arrays may be a whole song's.
        """
        self._connecting = threading.Lock()
        self._ended = threading.Event()
        self._feeder = threading.Thread(target=self._feed, args=(inputs,), daemon=True) if inputs else None
        self._waiting = socket.socket(socket.AF_UNIX)
        self._waiting.bind(_PREFIX + job_id.encode())
        self._waiting.listen(4)
        self._waiting.setblocking(False)
        self._sender: socket.socket | None = None

    def __enter__(self) -> AckSender:
        if self._feeder is not None:
            self._feeder.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection, which wakes a waiting callee."""
        with self._connecting:  # from here on nobody accepts a connection, and what there is can be shut down
            self._ended.set()
        if self._sender is not None:
            with suppress(OSError):
                self._sender.shutdown(socket.SHUT_RDWR)
        if self._feeder is not None:
            self._feeder.join()  # before its descriptors are closed
        self._waiting.close()
        if self._sender is not None:
            self._sender.close()

    def arrays(self) -> dict[str, Array]:
        """Read the arrays that follow a response with outputs; none from a callee that needs no acknowledgements.

        Raises:
            ConnectionError: the callee has died.
        """
        connection = self._connect()
        return {} if connection is None else read_frame(connection)

    def take(self) -> None:
        """Acknowledge one response."""
        connection = self._connect()
        if connection is not None:
            with suppress(OSError):  # the callee has died
                connection.send(b"1")

    def _connect(self) -> socket.socket | None:
        """Return the callee's connection, which it makes before its first response; None without one."""
        with self._connecting, suppress(OSError):
            while self._sender is None and not self._ended.is_set():
                self._sender = _own(self._waiting.accept()[0])
        return self._sender

    def _feed(self, inputs: dict[str, Array]) -> None:
        coming = select.poll()
        coming.register(self._waiting, select.POLLIN)
        while not self._ended.is_set():
            connection = self._connect()
            if connection is not None:
                with suppress(OSError):  # the call has ended
                    write_frame(connection, inputs)
                inputs.clear()
                return
            coming.poll(50)


def _own(peer: socket.socket) -> socket.socket | None:
    """Return the connection if the peer is this user. Every user can read the names of such sockets."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(_CREDENTIALS))
    if struct.unpack(_CREDENTIALS, credentials)[1] == os.geteuid():
        return peer
    peer.close()
    return None


class AckReceiver:
    """The callee's side of one stream. Only `wait` is thread-safe."""

    def __init__(self, job_id: bytes) -> None:
        self._missing = 0
        self._socket: socket.socket | None = socket.socket(socket.AF_UNIX)
        self._poll = select.poll()
        try:
            self._socket.setblocking(False)  # before connecting, because other users may fill the queue of connections
            self._socket.connect(_PREFIX + job_id)
            self._poll.register(self._socket, select.POLLIN)
        except OSError:
            self.close()  # the caller sends no acknowledgements

    @property
    def connected(self) -> bool:
        """Whether the caller listens."""
        return self._socket is not None

    def inputs(self) -> dict[str, Array]:
        """Receive the inputs that the caller sends apart.

        Raises:
            ConnectionError: it has died, or sends none.
        """
        if self._socket is None:
            raise ConnectionError("the caller does not listen")
        return read_frame(self._socket)

    def sent(self, arrays: Mapping[str, Array] | None = None) -> None:
        """Count a sent response; `arrays` follow one with outputs."""
        self._missing += 1
        if arrays is not None and self._socket is not None:
            try:
                write_frame(self._socket, arrays)
            except OSError:
                self.close()

    def complete(self) -> bool:
        """Return whether every response was acknowledged, or the caller has ended."""
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
        """Wait for an acknowledgement or for the caller's death."""
        with suppress(OSError):
            self._poll.poll(seconds * 1000)

    def close(self) -> None:
        """Close the connection."""
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()
