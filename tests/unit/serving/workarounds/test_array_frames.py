"""Arrays between two models' processes, beside Triton's messages."""

from __future__ import annotations

import json
import socket
import struct
import threading
import uuid

import numpy as np
import pytest

from heartvoice.arrays import Array
from heartvoice.serving.workarounds import array_frames
from heartvoice.serving.workarounds.acknowledgements import AckReceiver, AckSender
from heartvoice.serving.workarounds.array_frames import LEAST_BYTES, large_arrays, read_frame, write_frame

RNG = np.random.default_rng(0)
ARRAYS = {
    "vocals": RNG.standard_normal(700_001).astype(np.float32),
    "audio": np.asfortranarray(RNG.standard_normal((2, 5000))),
    "codes": np.arange(12, dtype=np.int64).reshape(3, 1, 4),
    "live": np.array([True]),
    "none": np.zeros((2, 0), np.float32),
}


def test_arrays_come_as_they_were_sent() -> None:
    ours, theirs = socket.socketpair()

    def send() -> None:
        write_frame(ours, ARRAYS)
        write_frame(ours, {})

    sender = threading.Thread(target=send)
    sender.start()
    first, second = read_frame(theirs), read_frame(theirs)
    sender.join()
    assert list(first) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert (first[name].dtype, first[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(first[name], array)
    assert second == {}
    assert first["vocals"].flags.writeable, "they are the reader's own"


def test_a_peer_that_ends_ends_both_reading_and_writing() -> None:
    ours, theirs = socket.socketpair()

    def leave() -> None:
        theirs.recv(1000)
        theirs.close()

    reader = threading.Thread(target=leave)
    reader.start()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        write_frame(ours, {"vocals": np.zeros(10**7, np.float32)})
    reader.join()
    ours, theirs = socket.socketpair()
    ours.sendall(struct.pack("<I", 100) + b"[")
    ours.close()
    with pytest.raises(ConnectionError, match="the peer ended 99 bytes before the end"):
        read_frame(theirs)


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        (None, "expected a header of at most 65536 bytes, got 4294967295"),
        ([["a", "<f4", [2**20, 2**20]]], "expected at most 1073741824 bytes of a, got 4398046511104"),
        ([["a", "<f4", [-1]]], "expected at most 1073741824 bytes of a, got -4"),
    ],
)
def test_a_frame_of_an_absurd_size_takes_no_memory(header: object, fault: str) -> None:
    ours, theirs = socket.socketpair()
    data = json.dumps(header).encode()
    ours.sendall(struct.pack("<I", 2**32 - 1 if header is None else len(data)) + data)
    with pytest.raises(ConnectionError, match=fault):
        read_frame(theirs)


def test_a_sender_that_stands_still_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_frames, "STALLED_S", 0.0)
    _, theirs = socket.socketpair()
    with pytest.raises(ConnectionError, match="expected 4 more bytes within 0 s"):
        read_frame(theirs)


def test_only_large_arrays_of_numbers_go_apart() -> None:
    n = LEAST_BYTES // 4
    values: dict[str, Array | str | bytes] = {
        "a": np.zeros(n, np.float32),
        "b": np.zeros(n - 1, np.float32),
        "c": "x" * 2 * n,
        "d": b"y" * 2 * n,
    }
    values["e"] = np.array([b"z"] * n, np.object_)
    assert list(large_arrays(values)) == ["a"]


def test_inputs_come_over_the_socket_of_the_acknowledgements() -> None:
    job_id, inputs = uuid.uuid4().hex, dict(ARRAYS)
    with AckSender(job_id, inputs) as caller:
        callee = AckReceiver(job_id.encode())
        assert np.array_equal(callee.inputs()["vocals"], ARRAYS["vocals"])
        answer = threading.Thread(target=callee.sent, args=(ARRAYS,))
        answer.start()
        assert np.array_equal(caller.arrays()["vocals"], ARRAYS["vocals"])
        answer.join()
        assert not callee.complete()
        caller.take()
        callee.wait(300)
        assert callee.complete()
    assert not inputs, "the caller keeps none of them"


def test_a_caller_whose_callee_never_reads_its_inputs_is_not_held_up() -> None:
    with AckSender(uuid.uuid4().hex, dict(ARRAYS)):
        pass  # never called
    for _ in range(20):  # it leaves before, while and after the connection is accepted
        job_id = uuid.uuid4().hex
        with AckSender(job_id, {"vocals": np.zeros(10**6, np.float32)}):
            callee = AckReceiver(job_id.encode())
        with pytest.raises(ConnectionError):
            callee.inputs()
    with pytest.raises(ConnectionError, match="the caller does not listen"):
        AckReceiver(b"nobody").inputs()
