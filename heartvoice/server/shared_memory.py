"""Tensors by system shared memory: who may register it, and what dead clients left registered.

Triton maps any POSIX shared memory of the server's user that a caller names, its own models' included, and a caller who
writes there runs code in the server (the chain CVE-2025-23319, -23320, -23334). So the API has its own key, in a file
that only the server's user can read. Triton takes the key on its command line, which other users of the host can read:
on a host with other users the server must listen on a Unix socket. Files and regions carry their owner's process, so
that orphans are known.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from heartvoice import shm_regions
from heartvoice.shm_regions import API_KEY_NAME, HEADER, KEY, PREFIX, is_dead, owner_of

log = logging.getLogger(__name__)

API = "shared-memory"
REAP_S = 2.0
"""Seconds between two searches for regions of dead clients."""
_TIMEOUT_S = 5.0


class SharedMemoryGrant:
    """One server's permission to register shared memory."""

    def __init__(self, url: str, port: int, prefix: str) -> None:
        """`prefix` is that of the run's shared memory, with which the key's file is removed."""
        self._url, self._key = url, secrets.token_hex(16)
        self._path = shm_regions.SHM / f"{prefix}{KEY}{port}"
        self._reaped = time.monotonic()

    @property
    def argument(self) -> str:
        """Argument of the server."""
        return f"--grpc-restricted-protocol={API}:{API_KEY_NAME}={self._key}"

    def publish(self) -> None:
        """Write the key to a file that clients of this user find."""
        with os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self._key)

    def reap(self) -> None:
        """Unregister regions of dead clients: their names are gone, but the server holds them."""
        if time.monotonic() - self._reaped < REAP_S:
            return
        self._reaped = time.monotonic()
        metadata = ((HEADER, self._key),)
        with grpc.insecure_channel(self._url) as channel, contextlib.suppress(grpc.RpcError):
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            request = service_pb2.SystemSharedMemoryStatusRequest()
            status = stub.SystemSharedMemoryStatus(request, metadata=metadata, timeout=_TIMEOUT_S)
            for name in status.regions:
                if name.startswith(PREFIX) and is_dead(owner_of(name)):
                    log.info("unregistering the shared memory %s of a client that died", name)
                    gone = service_pb2.SystemSharedMemoryUnregisterRequest(name=name)
                    stub.SystemSharedMemoryUnregister(gone, metadata=metadata, timeout=_TIMEOUT_S)
