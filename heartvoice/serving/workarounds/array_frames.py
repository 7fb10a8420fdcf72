"""Carries large arrays of an inner stream over its socket of acknowledgements, beside Triton's messages.

Fault (Triton 2.51): the shared memory of a model's process only grows: what an array of a whole song took once stays
    taken until the server ends. A response iterator keeps every response of its stream until it is freed itself.
Does: sends arrays of at least `LEAST_BYTES` between two models' processes as a frame over the Unix socket that the
    stream's acknowledgements use, in both directions. Inputs that the callee's contract requires go by Triton.
Test: `test_arrays_come_as_they_were_sent`, `test_large_arrays_of_a_stream_take_no_shared_memory`
Delete when: the Python backend gives freed shared memory back, and a response iterator frees what was read.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections.abc import Mapping

import numpy as np

from heartvoice.arrays import Array

LEAST_BYTES = 2**16
STALLED_S = 30.0
"""A sender that sends nothing for so long in the middle of a frame has stopped."""
_LENGTH = struct.Struct("<I")
_MOST_HEADER, _MOST_BYTES = 2**16, 2**30


def large_arrays(values: Mapping[str, Array | str | bytes]) -> dict[str, Array]:
    """Return the values that are large arrays of numbers."""
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, np.ndarray) and value.dtype != np.object_ and value.nbytes >= LEAST_BYTES
    }


def write_frame(connection: socket.socket, arrays: Mapping[str, Array]) -> None:
    """Send arrays; waits until the peer has read what its socket cannot hold.

    Raises:
        OSError: the peer has closed its end.
    """
    ordered = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header = json.dumps([[name, array.dtype.str, array.shape] for name, array in ordered.items()]).encode()
    _send(connection, memoryview(_LENGTH.pack(len(header)) + header))
    for array in ordered.values():
        if array.nbytes:
            _send(connection, array.reshape(-1).view(np.uint8).data)


def read_frame(connection: socket.socket) -> dict[str, Array]:
    """Receive the arrays of one frame.

    Raises:
        ConnectionError: the peer has closed its end, stands still in the middle of it, or sends something else.
    """
    (size,) = _LENGTH.unpack(_receive(connection, _LENGTH.size))
    if size > _MOST_HEADER:
        raise ConnectionError(f"frame: expected a header of at most {_MOST_HEADER} bytes, got {size}")
    arrays: dict[str, Array] = {}
    for name, dtype, shape in json.loads(_receive(connection, size)):
        n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if not 0 <= n_bytes <= _MOST_BYTES:
            raise ConnectionError(f"frame: expected at most {_MOST_BYTES} bytes of {name}, got {n_bytes}")
        arrays[name] = np.frombuffer(_receive(connection, n_bytes), dtype).reshape(shape)
    return arrays


def _send(connection: socket.socket, data: memoryview) -> None:
    ready = select.poll()
    ready.register(connection, select.POLLOUT)
    while len(data):
        try:
            data = data[connection.send(data, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT) :]
        except BlockingIOError:
            ready.poll(1000)


def _receive(connection: socket.socket, n_bytes: int) -> bytearray:
    ready = select.poll()
    ready.register(connection, select.POLLIN)
    data = bytearray(n_bytes)
    rest, came = memoryview(data), time.monotonic()
    while len(rest):
        try:
            n = connection.recv_into(rest, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if time.monotonic() - came > STALLED_S:
                raise ConnectionError(f"frame: expected {len(rest)} more bytes within {STALLED_S:g} s") from None
            ready.poll(1000)
            continue
        if not n:
            raise ConnectionError(f"frame: the peer ended {len(rest)} bytes before the end")
        rest, came = rest[n:], time.monotonic()
    return data
