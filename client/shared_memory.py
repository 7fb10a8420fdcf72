"""Large inputs by system shared memory in place of the message: for servers on this machine that allow it.

A region lives as long as one try of one call. Its file is unlinked as soon as the server has mapped it, so that a
client that is killed leaves none; what the server has mapped it lets go when it is told, or when this process is gone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from heartvoice import shm_regions
from heartvoice.client import wire
from heartvoice.errors import InvalidRequestError, ModelMissingError, ModelUnavailableError
from heartvoice.shm_regions import HEADER, find_key, new_region_name

LARGE_BYTES = 1_000_000
"""Inputs from here on travel by shared memory; below, registering costs more than it saves."""
TIMEOUT_S = 5.0
IN_USE_S = 1.0
"""Seconds for which a cancelled request may still use its region."""
_LOCAL = re.compile(r"^(?:127\.\d+\.\d+\.\d+|localhost|\[::1\]|unix:.+):(\d+)$")
_IN_USE = "currently in use"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedMemoryRequest:
    """A message whose large inputs lie in a region beside it."""

    message: Any
    region: str
    contents: tuple[bytes, ...]

    @classmethod
    def of(cls, message: Any) -> SharedMemoryRequest | None:
        """Split a `ModelInferRequest` into a new one and the contents of its large inputs; None if it has none."""
        region, contents, offset = new_region_name(), [], 0
        sent = service_pb2.ModelInferRequest(
            model_name=message.model_name, model_version=message.model_version, id=message.id,
            inputs=message.inputs, outputs=message.outputs,
        )  # fmt: skip
        for name, value in message.parameters.items():
            sent.parameters[name].CopyFrom(value)
        for tensor, raw in zip(sent.inputs, message.raw_input_contents, strict=True):
            if len(raw) < LARGE_BYTES:
                sent.raw_input_contents.append(raw)
                continue
            tensor.parameters["shared_memory_region"].string_param = region
            tensor.parameters["shared_memory_byte_size"].int64_param = len(raw)
            tensor.parameters["shared_memory_offset"].int64_param = offset
            contents.append(raw)
            offset += len(raw)
        return cls(sent, region, tuple(contents)) if contents else None

    @property
    def n_bytes(self) -> int:
        """Size of the region."""
        return sum(map(len, self.contents))

    def write(self) -> None:
        """Make the region. Written, not mapped: where there is no room, a write fails and a mapping kills.

        Raises:
            ModelUnavailableError: there is no room.
        """
        try:
            descriptor = os.open(shm_regions.SHM / self.region, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                for content in self.contents:
                    left = memoryview(content)
                    while left:
                        left = left[file.write(left) :]
        except OSError as error:
            self.unlink()
            raise ModelMissingError(
                f"shared_memory: {shm_regions.SHM} cannot take {self.n_bytes} bytes: {error.strerror}; "
                "make room, or leave shared_memory off"
            ) from error

    def unlink(self) -> None:
        """Remove the region's name; without effect on who has mapped it."""
        (shm_regions.SHM / self.region).unlink(missing_ok=True)


class SharedMemory:
    """Sends tensors by shared memory. Safe for threads: each call has a region."""

    def __init__(self, url: str) -> None:
        """Prepare; nothing is looked for yet.

        Raises:
            InvalidRequestError: the server is not on this machine's loopback.
        """
        found = _LOCAL.match(url)
        if found is None:
            raise InvalidRequestError(f"shared_memory: expected a server at 127.0.0.1:PORT, got {url!r}")
        self._url, self._port = url, int(found[1])

    @contextmanager
    def sent(self, message: Any) -> Iterator[Any]:
        """The message to send within the block: itself, or one whose large inputs the server finds by name.

        Raises:
            ModelUnavailableError: the server does not allow it, or there is no room; another try is useless.
        """
        parcel = SharedMemoryRequest.of(message)
        if parcel is None:
            yield message
            return
        key = self._key()
        try:
            parcel.write()
            self._register(parcel, key)
            parcel.unlink()
            yield parcel.message
        finally:
            parcel.unlink()
            self._unregister(parcel, key)

    @asynccontextmanager
    async def sent_async(self, message: Any) -> AsyncIterator[Any]:
        """`sent` for asyncio: copying and registering happen in a thread, and go on if the task is cancelled."""
        block = self.sent(message)
        sent = await asyncio.to_thread(block.__enter__)
        try:
            yield sent
        finally:
            await asyncio.to_thread(block.__exit__, None, None, None)

    def _key(self) -> str:
        key = find_key(self._port)
        if key is None:
            raise self._refusal()
        return key

    def _refusal(self) -> ModelUnavailableError:
        return ModelMissingError(
            f"shared_memory: the server at {self._url} does not allow it to this user: start it with "
            "`heartvoice serve --shared-memory`, or leave shared_memory off"
        )

    @contextmanager
    def _stub(self) -> Iterator[Any]:
        """Calls by a connection of their own: the client's may have been closed in the middle of a call."""
        with grpc.insecure_channel(self._url, [("grpc.enable_http_proxy", 0)]) as channel:
            yield service_pb2_grpc.GRPCInferenceServiceStub(channel)

    def _register(self, parcel: SharedMemoryRequest, key: str) -> None:
        request = service_pb2.SystemSharedMemoryRegisterRequest(
            name=parcel.region, key=f"/{parcel.region}", offset=0, byte_size=parcel.n_bytes
        )
        try:
            with self._stub() as stub:
                stub.SystemSharedMemoryRegister(request, metadata=((HEADER, key),), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            details = error.details() or ""
            if "protocol is restricted" in details:
                raise self._refusal() from error
            raise wire.error_from_status(error.code().name, f"shared_memory: {details}") from error

    def _unregister(self, parcel: SharedMemoryRequest, key: str) -> None:
        """Have the server let go; what it does not within a second, it does when this process has ended."""
        request = service_pb2.SystemSharedMemoryUnregisterRequest(name=parcel.region)
        deadline = time.monotonic() + IN_USE_S
        with self._stub() as stub:
            while True:
                try:
                    stub.SystemSharedMemoryUnregister(request, metadata=((HEADER, key),), timeout=TIMEOUT_S)
                    return
                except grpc.RpcError as error:
                    if _IN_USE not in (error.details() or ""):
                        return  # the server is gone, and with it what it had mapped
                if time.monotonic() > deadline:
                    _logger.warning("%s: the server still uses it", parcel.region)
                    return
                time.sleep(0.01)
