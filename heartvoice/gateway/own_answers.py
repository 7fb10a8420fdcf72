"""Answers that the gateway gives itself: health, readiness, and what this server is."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2

import heartvoice
from heartvoice.contracts.about import ABOUT, EXTENSION, NAMES
from heartvoice.contracts.constants import CONTRACT
from heartvoice.errors import InvalidRequestError, QuotaError, UnknownModelError
from heartvoice.gateway.methods import SERVICE

LIVENESS, READINESS = "liveness", "readiness"
"""Service names of the health protocol, beside "" (readiness, too) and the models' names."""
LATELY_S = 0.2
UPSTREAM_S = 5.0
"""Longest wait for the server's part of an answer."""
WATCH_S = 1.0
"""Seconds between two looks for a watcher."""
MAX_WATCHERS = 100
"""Limit for all watchers together: they need no token, and each is a call that stays open."""
_STATUS = {True: b"\x08\x01", False: b"\x08\x02", None: b"\x08\x03"}
"""HealthCheckResponse with SERVING, NOT_SERVING and SERVICE_UNKNOWN."""


def service_of(message: bytes) -> str:
    """Return the service name of a HealthCheckRequest: its only field, 1, a text.

    Raises:
        InvalidRequestError: the message is another one.
    """
    if not message:
        return ""
    if len(message) < 2 or message[0] != 0x0A or message[1] != len(message) - 2 or message[1] > 127:
        raise InvalidRequestError("service: expected a name of at most 127 bytes, got something else")
    return message[2:].decode("utf-8", "replace")


class OwnAnswers:
    """Answers about the gateway and the server behind it."""

    def __init__(self, upstream: Any, models: Collection[str]) -> None:
        """Prepare.

        Args:
            upstream: the `grpc.aio` channel to the server.
            models: the models that callers may reach.
        """
        self._models = models
        self._stopping, self._watchers = asyncio.Event(), 0
        self._found: dict[str, tuple[float, asyncio.Task[bool]]] = {}
        self._calls = {
            name: upstream.unary_unary(f"/{SERVICE.full_name}/{name}")
            for name in ("ServerReady", "ModelReady", "ServerMetadata", "ModelConfig")
        }

    async def answer(self, name: str, message: bytes) -> bytes:
        """Answer a call of the method `name`."""
        answer: Any
        if name == "Check":
            return _STATUS[await self._serving(service_of(message))]
        if name == "ServerLive":
            answer = service_pb2.ServerLiveResponse(live=True)
        elif name == "ServerReady":
            answer = service_pb2.ServerReadyResponse(ready=await self.ready())
        else:
            answer = await self._metadata()
        encoded: bytes = answer.SerializeToString()
        return encoded

    async def watch(self, message: bytes) -> AsyncGenerator[bytes, None]:
        """Yield the status that a HealthCheckRequest asks for: now, at each change, and when the gateway is stopped.

        Raises:
            InvalidRequestError: the message is another one.
            QuotaError: there are too many watchers.
        """
        service, last = service_of(message), b""
        if self._watchers >= MAX_WATCHERS:
            raise QuotaError(f"Watch: expected at most {MAX_WATCHERS} at once, got one more; ask by Check")
        self._watchers += 1
        try:
            while not self._stopping.is_set():
                status = _STATUS[await self._known(service)]
                if status != last:
                    yield status
                last = status
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), WATCH_S)
            if last != _STATUS[False]:
                yield _STATUS[False]
        finally:
            self._watchers -= 1

    def stop(self) -> None:
        """Tell watchers that the gateway is being stopped, and end their calls."""
        self._stopping.set()

    async def _known(self, service: str) -> bool | None:
        """Return whether a service is ready; None if there is none of the name."""
        try:
            return await self._serving(service)
        except UnknownModelError:
            return None

    async def ready(self) -> bool:
        """Return whether the server takes jobs: it answers, and is not being stopped."""
        return await self._lately("", self._look)

    async def _lately(self, name: str, look: Callable[[], Coroutine[Any, Any, bool]]) -> bool:
        """Return what was found within `LATELY_S`, so that many probes do not become many calls to the server."""
        now = time.monotonic()
        at, found = self._found.get(name, (-math.inf, None))
        if found is None or now - at > LATELY_S:
            found = asyncio.create_task(look())
            self._found[name] = (now, found)
        return await asyncio.shield(found)

    async def _look(self) -> bool:
        ready, withdrawn = await asyncio.gather(self._server_ready(), self._withdrawn())
        return ready and not withdrawn

    async def _serving(self, service: str) -> bool:
        if service == LIVENESS:
            return True
        if service in ("", READINESS, SERVICE.full_name):
            return await self.ready()
        if service not in self._models:
            known = ", ".join((LIVENESS, READINESS, *self._models))
            raise UnknownModelError(f"service: expected nothing or one of {known}, got {service[:80]!r}")
        loaded = self._lately(service, partial(self._model_ready, service))
        return all(await asyncio.gather(self.ready(), loaded))

    async def _server_ready(self) -> bool:
        answer = await self._ask("ServerReady", service_pb2.ServerReadyRequest())
        return answer is not None and bool(service_pb2.ServerReadyResponse.FromString(answer).ready)

    async def _model_ready(self, name: str) -> bool:
        answer = await self._ask("ModelReady", service_pb2.ModelReadyRequest(name=name))
        return answer is not None and bool(service_pb2.ModelReadyResponse.FromString(answer).ready)

    async def _withdrawn(self) -> bool:
        """Return whether `heartvoice serve` is stopping. Unknown of a server that it did not start."""
        answer = await self._ask("ServerMetadata", service_pb2.ServerMetadataRequest())
        ours = answer is not None and service_pb2.ServerMetadataResponse.FromString(answer).name == ABOUT
        return ours and not await self._model_ready(ABOUT)

    async def _metadata(self) -> Any:
        facts = {"version": heartvoice.__version__, "contract": str(CONTRACT)}
        answer = await self._ask("ModelConfig", service_pb2.ModelConfigRequest(name=ABOUT))
        if answer is not None:
            parameters = service_pb2.ModelConfigResponse.FromString(answer).config.parameters
            facts |= {name: parameters[name].string_value for name in NAMES if name in parameters}
        extensions = [f"{EXTENSION}{name}={value}" for name, value in facts.items()]
        return service_pb2.ServerMetadataResponse(name=ABOUT, version=facts["version"], extensions=extensions)

    async def _ask(self, name: str, message: Any) -> bytes | None:
        """Ask the server; None without an answer."""
        try:
            answer: bytes = await self._calls[name](message.SerializeToString(), timeout=UPSTREAM_S)
        except grpc.aio.AioRpcError:
            return None
        return answer
