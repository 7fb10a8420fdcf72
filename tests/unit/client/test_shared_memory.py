"""Large inputs beside the message: what is put where, and who is refused. The real server's part is in integration."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from heartvoice import shm_regions
from heartvoice.client import AsyncClient, Client, wire
from heartvoice.client.recordings import as_recording
from heartvoice.client.shared_memory import LARGE_BYTES, SharedMemory, SharedMemoryRequest
from heartvoice.contracts.kserve import WANT_FINAL
from heartvoice.errors import InvalidRequestError, ModelUnavailableError

RATE = 48_000


def recording(seconds: float) -> tuple[np.ndarray, int]:
    return np.full((2, round(seconds * RATE)), 0.1, np.float32), RATE


@pytest.fixture
def shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shm_regions, "SHM", tmp_path)
    return tmp_path


def test_large_inputs_alone_leave_the_message(shm: Path) -> None:
    message = wire.encode_stems(as_recording(recording(10)), "vocals", request_id="x", events=True)
    parcel = SharedMemoryRequest.of(message)
    assert parcel is not None
    by_name = {tensor.name: tensor.parameters for tensor in parcel.message.inputs}
    assert by_name["audio"]["shared_memory_region"].string_param == parcel.region
    assert by_name["audio"]["shared_memory_byte_size"].int64_param == parcel.n_bytes == 10 * RATE * 2 * 4
    assert not by_name["sources"]
    assert len(parcel.message.raw_input_contents) == len(message.inputs) - 1
    assert parcel.message.parameters[WANT_FINAL].bool_param
    assert parcel.message.id == "x"
    parcel.write()
    region = shm / parcel.region
    assert region.read_bytes() == message.raw_input_contents[[t.name for t in message.inputs].index("audio")]
    assert region.stat().st_mode & 0o777 == 0o600
    assert not shm_regions.is_dead(shm_regions.owner_of(parcel.region))
    parcel.unlink()
    assert not list(shm.iterdir())


def test_two_large_inputs_lie_one_after_the_other(shm: Path) -> None:
    message = wire.encode_stems(as_recording(recording(10)), None)
    message.inputs.add(name="again", datatype="FP32", shape=[LARGE_BYTES // 4])
    message.raw_input_contents.append(bytes(range(250)) * (LARGE_BYTES // 250))
    parcel = SharedMemoryRequest.of(message)
    assert parcel is not None
    parcel.write()
    offset = parcel.message.inputs[-1].parameters["shared_memory_offset"].int64_param
    assert (shm / parcel.region).read_bytes()[offset:] == message.raw_input_contents[-1]


def test_small_messages_stay_as_they_are() -> None:
    message = wire.encode_stems(as_recording(recording(1)), None)
    assert SharedMemoryRequest.of(message) is None
    with SharedMemory("127.0.0.1:1").sent(message) as sent:
        assert sent is message


def test_a_server_elsewhere_is_refused() -> None:
    for make in (Client, AsyncClient):
        with pytest.raises(InvalidRequestError, match=r"shared_memory: expected a server at 127\.0\.0\.1:PORT"):
            make("songs.example:8001", shared_memory=True)


def test_a_server_without_permission_is_named_with_what_would_help(shm: Path) -> None:
    with Client("127.0.0.1:1", shared_memory=True) as client:
        with pytest.raises(ModelUnavailableError, match=r"127\.0\.0\.1:1 does not allow it.*serve --shared-memory"):
            client.embed(recording(10))
        with pytest.raises(ModelUnavailableError, match="does not allow it"):
            list(client.stream_stems(recording(10)))
    assert not list(shm.iterdir())


def test_no_room_is_said_and_nothing_left(shm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, *_: object, **__: object) -> object:
        raise OSError(28, "No space left on device")

    (shm / f"{shm_regions.shm_prefix(shm_regions.process_identity(os.getpid()))}run_key_1").write_text("secret")
    monkeypatch.setattr(os, "fdopen", full)
    with (
        Client("127.0.0.1:1", shared_memory=True) as client,
        pytest.raises(ModelUnavailableError, match="cannot take 3840000 bytes: No space left"),
    ):
        client.embed(recording(10))
    assert [path.name.endswith("key_1") for path in shm.iterdir()] == [True]


def test_a_key_is_found_by_its_port_while_its_server_lives(shm: Path) -> None:
    prefix = shm_regions.shm_prefix(shm_regions.process_identity(os.getpid()))
    (shm / f"{prefix}run_key_8001").write_text("secret")
    (shm / f"{shm_regions.shm_prefix('4194304_1')}run_key_9001").write_text("of a dead one")
    assert shm_regions.find_key(8001) == "secret"
    assert shm_regions.find_key(9001) is None
    assert shm_regions.find_key(1) is None
