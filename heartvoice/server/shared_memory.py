"""Tensors by system shared memory: which clients may register it, and what those that died left registered.

Triton maps any POSIX shared memory of the server's user that a caller names, its own models' included, and whoever
writes there runs code in the server (the chain CVE-2025-23319, -23320, -23334). So the API has a key of its own, in a
file beside the shared memory that only the server's user can read: it opens nothing to anyone who could not as well
attach a debugger to the server. Both files and regions carry their owner's process, so that leftovers are known.
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
"""How often the server looks for regions of clients that died."""
_TIMEOUT_S = 5.0


class SharedMemoryGrant:
    """One server's permission to register shared memory."""

    def __init__(self, url: str, port: int, prefix: str) -> None:
        """`prefix` is that of the run's shared memory, with which the key's file goes, too."""
        self._url, self._key = url, secrets.token_hex(16)
        self._path = shm_regions.SHM / f"{prefix}{KEY}{port}"
        self._reaped = time.monotonic()

    @property
    def argument(self) -> dict[str, str]:
        """What the server is started with, without and with the key."""
        argument = f"--grpc-restricted-protocol={API}:{API_KEY_NAME}="
        return {argument: argument + self._key}

    def publish(self) -> None:
        """Write the key where clients of this user find it."""
        with os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self._key)

    def reap(self) -> None:
        """Unregister regions of clients that died, now and then: unlinked they are, but the server holds them."""
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
