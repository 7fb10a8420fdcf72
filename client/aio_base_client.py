"""The base of the asynchronous client: gRPC channel, deadlines, retries and the end of calls."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext, suppress
from types import TracebackType
from typing import Any, TypeVar

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from heartvoice.client import wire
from heartvoice.client.arguments import ConnectionArguments, Unpack
from heartvoice.client.connection import READY_TIMEOUT_S, Connection
from heartvoice.client.messages import DEFAULT_URL
from heartvoice.client.resumption import Resumption
from heartvoice.client.retries import RetryState
from heartvoice.client.shared_memory import SharedMemory
from heartvoice.client.stream_reader import DRAIN_IDLE_S, DRAIN_TIMEOUT_S, StreamReader
from heartvoice.client.transport import AsyncStub, Transport
from heartvoice.errors import HeartvoiceError, InvalidRequestError, ModelUnavailableError

M = TypeVar("M")
T = TypeVar("T")
_Self = TypeVar("_Self", bound="AsyncBaseClient")


class AsyncBaseClient:
    """`heartvoice.client.base_client.BaseClient` for asyncio; it belongs to the event loop of its first call."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        shared_memory: bool = False,
        transport: Transport | None = None,
        **connection: Unpack[ConnectionArguments],
    ) -> None:
        """Prepare the connection; the arguments are those of `Client`."""
        if transport is not None and shared_memory:
            raise InvalidRequestError("shared_memory: expected a gRPC server, got a transport")
        self._shared = SharedMemory(url) if shared_memory else None
        self._connection = Connection(url, **connection)
        self._transport = transport
        self._credentials = self._connection.credentials
        self._channel: Any = None
        self._stub: Any = None if transport is None else AsyncStub(transport)
        self._closed = asyncio.Event()

    async def server_ready(self, *, timeout_s: float = READY_TIMEOUT_S) -> bool:
        """True if the server answers and all its models are loaded; see `Client.server_ready`."""
        return await self._ready("ServerReady", service_pb2.ServerReadyRequest(), timeout_s)

    async def model_ready(self, name: str = "song", *, timeout_s: float = READY_TIMEOUT_S) -> bool:
        """True if the model is loaded; see `Client.model_ready`."""
        return await self._ready("ModelReady", service_pb2.ModelReadyRequest(name=name), timeout_s)

    async def close(self) -> None:
        """Close the connection; calls under way end with RequestCancelledError and are cancelled on the server."""
        self._closed.set()
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self: _Self) -> _Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _stream(
        self, message: Any, spec: wire.StreamSpec[M], timeout_s: float | None, events: bool
    ) -> AsyncGenerator[M, None]:
        return self._tries(message, spec, self._connection.attempts(spec.model.name, timeout_s, message), events)

    async def _tries(
        self, message: Any, spec: wire.StreamSpec[M], attempts: RetryState, events: bool
    ) -> AsyncGenerator[M, None]:
        attempts.begin()
        message.id = attempts.request_id
        resumption = Resumption[M](attempts)
        while True:
            reader = StreamReader(spec, resumption, events=events)
            try:
                async with aclosing(self._attempt(message, attempts, reader)) as messages:
                    async for item in messages:
                        yield item
            except HeartvoiceError as error:
                await self._wait(attempts.delay_after(error, received=reader.received))
            else:
                return

    async def _attempt(self, message: Any, attempts: RetryState, reader: StreamReader[M]) -> AsyncGenerator[M, None]:
        async with self._sent(message) as sent, aclosing(self._read(sent, attempts, reader)) as messages:
            async for item in messages:
                yield item

    async def _read(self, message: Any, attempts: RetryState, reader: StreamReader[M]) -> AsyncGenerator[M, None]:  # noqa: C901 (one state machine)
        call = self._call("ModelStreamInfer", [message], attempts)
        stall_s = self._connection.stall_timeout_s
        stalled = False

        def give_up() -> None:
            nonlocal stalled
            stalled = True
            call.cancel()

        try:
            while True:
                # Not asyncio.wait_for: until Python 3.12 it may swallow a cancellation of the task.
                timer = None if math.isinf(stall_s) else asyncio.get_running_loop().call_later(stall_s, give_up)
                try:
                    response = await call.read()
                finally:
                    if timer is not None:
                        timer.cancel()
                if response is grpc.aio.EOF:
                    break
                for item in reader.feed(response):
                    yield item
            if stalled:
                raise attempts.stalled(stall_s)
            if await call.code() is not grpc.StatusCode.OK:
                raise self._status(attempts, await call.code(), await call.details())
        except GeneratorExit:
            if self._transport is None:
                await _drain(call)
            raise
        except grpc.RpcError as error:
            raise self._failure(error, attempts) from error
        except asyncio.CancelledError:
            if stalled:
                raise attempts.stalled(stall_s) from None
            self._raise_if_closed(attempts)
            raise
        finally:
            call.cancel()  # without effect on a call that has ended
        reader.finish()

    async def _infer(self, message: Any, timeout_s: float | None, decode: Callable[[Any, int], T]) -> T:
        attempts = self._connection.attempts(message.model_name, timeout_s, message)
        message.id = attempts.request_id
        while True:
            try:
                async with self._sent(message) as sent:
                    return decode(await self._unary("ModelInfer", sent, attempts), attempts.count)
            except HeartvoiceError as error:
                await self._wait(attempts.delay_after(error, received=False))

    def _sent(self, message: Any) -> AbstractAsyncContextManager[Any]:
        """The message to send during the block: large inputs may be in shared memory."""
        return nullcontext(message) if self._shared is None else self._shared.sent_async(message)

    async def _unary(self, method: str, message: Any, attempts: RetryState) -> Any:
        call = self._call(method, message, attempts)
        try:
            return await call
        except grpc.RpcError as error:
            raise self._failure(error, attempts) from error
        except asyncio.CancelledError:
            self._raise_if_closed(attempts)
            raise
        finally:
            call.cancel()

    def _call(self, method: str, argument: Any, attempts: RetryState) -> Any:
        timeout_s = attempts.remaining_s()
        if self._closed.is_set():
            raise attempts.closed()
        if self._stub is None:  # made here, since a channel belongs to the loop that runs when it is made
            url, options = self._connection.url, self._connection.options
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(url, options)
            else:
                self._channel = grpc.aio.secure_channel(url, self._credentials, options)
            self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        return getattr(self._stub, method)(argument, timeout=timeout_s, metadata=self._connection.metadata)

    def _failure(self, error: Any, attempts: RetryState) -> HeartvoiceError:
        return self._status(attempts, error.code(), error.details())

    def _status(self, attempts: RetryState, code: Any, details: str | None) -> HeartvoiceError:
        if self._closed.is_set():
            return attempts.closed()
        return attempts.failure(code.name, details or "")

    def _raise_if_closed(self, attempts: RetryState) -> None:
        """grpc.aio reports a closed channel as a cancelled task; tell the two apart."""
        cancelling = getattr(asyncio.current_task(), "cancelling", lambda: 0)  # Python 3.11
        if self._closed.is_set() and not cancelling():
            raise attempts.closed() from None

    async def _wait(self, delay_s: float) -> None:
        """Sleep before the next try; the next try notices if the client was closed meanwhile."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._closed.wait(), delay_s)

    async def _ready(self, method: str, message: Any, timeout_s: float) -> bool:
        attempts = self._connection.attempts("server", timeout_s)
        try:
            return bool((await self._unary(method, message, attempts)).ready)
        except ModelUnavailableError:
            return False


async def _drain(call: Any) -> None:
    """Read what the server has ready for a stream that is left."""
    until = time.monotonic() + DRAIN_TIMEOUT_S
    with suppress(asyncio.TimeoutError, asyncio.InvalidStateError, grpc.RpcError):
        while time.monotonic() < until:
            if await asyncio.wait_for(call.read(), DRAIN_IDLE_S) is grpc.aio.EOF:
                return
