"""Recordings by shared memory: the same answers, and nothing left behind, whatever ends the call."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from heartvoice import keyed_random, shm_regions
from heartvoice.client import AsyncClient, Client
from heartvoice.errors import ModelUnavailableError
from heartvoice.runtime.repository import Repository
from heartvoice.server.server import EmbeddedServer
from heartvoice.shm_regions import HEADER, find_key
from tests.support.servers import running_server
from tests.support.waiting import wait_until

RATE = 48_000
RECORDING = (0.1 * keyed_random.normal(3, "shared memory", 0, (2, 9 * RATE))).astype(np.float32), RATE
CLIENT = """
import sys
import numpy as np
from heartvoice.client import Client
with Client(sys.argv[1], shared_memory=True) as client:
    for _ in client.stream_stems((np.full((2, 120 * 48000), 0.1, np.float32), 48000)):
        print("heard", flush=True)
"""


@pytest.fixture(scope="module")
def sharing(repository: Repository) -> Iterator[EmbeddedServer]:
    models = ("demucs", "htdemucs", "speaker_encoder", "speaker_network")
    with running_server(repository.root, models=models, shared_memory=True) as running:
        yield running


def registered(server: EmbeddedServer) -> list[str]:
    """What the server has mapped, and the files of clients."""
    key = find_key(server.options.grpc_port)
    assert key is not None
    with grpc.insecure_channel(server.url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        status = stub.SystemSharedMemoryStatus(
            service_pb2.SystemSharedMemoryStatusRequest(), metadata=((HEADER, key),), timeout=5
        )
    return [*status.regions, *(path.name for path in shm_regions.SHM.glob(f"{shm_regions.PREFIX}*_client_*"))]


def test_a_recording_gives_the_same_answer_either_way(sharing: EmbeddedServer) -> None:
    async def embed() -> np.ndarray:
        async with AsyncClient(sharing.url, shared_memory=True) as client:
            return (await client.embed(RECORDING)).vector

    with Client(sharing.url) as plain, Client(sharing.url, shared_memory=True) as sharer:
        expected = plain.embed(RECORDING).vector
        np.testing.assert_array_equal(sharer.embed(RECORDING).vector, expected)
        np.testing.assert_array_equal(asyncio.run(embed()), expected)
        stems = [client.separate(RECORDING, sources="vocals")["vocals"] for client in (plain, sharer)]
    np.testing.assert_array_equal(stems[0], stems[1])
    assert registered(sharing) == []


def test_a_call_that_is_left_early_leaves_nothing(sharing: EmbeddedServer) -> None:
    with Client(sharing.url, shared_memory=True) as client:
        stream = client.stream_stems(RECORDING)
        next(stream)
        stream.close()
        assert registered(sharing) == []
    with Client(sharing.url, shared_memory=True) as client:
        stream = client.stream_stems(RECORDING)
        next(stream)
        client.close()
        stream.close()
    assert registered(sharing) == []


def test_the_server_lets_go_of_what_a_killed_client_registered(sharing: EmbeddedServer) -> None:
    process = subprocess.Popen([sys.executable, "-c", CLIENT, sharing.url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "heard\n"
    assert len(registered(sharing)) == 1, "mapped, and without a file"
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: registered(sharing) == [], 60.0, "the region of the killed client goes")


def test_the_api_stays_closed_without_its_key(sharing: EmbeddedServer, server: EmbeddedServer) -> None:
    for each in (sharing, server):
        with grpc.insecure_channel(each.url) as channel, pytest.raises(grpc.RpcError, match="protocol is restricted"):
            service_pb2_grpc.GRPCInferenceServiceStub(channel).SystemSharedMemoryStatus(
                service_pb2.SystemSharedMemoryStatusRequest(), timeout=5
            )
    with (
        Client(server.url, shared_memory=True) as client,
        pytest.raises(ModelUnavailableError, match="serve --shared-memory"),
    ):
        client.embed(RECORDING)
