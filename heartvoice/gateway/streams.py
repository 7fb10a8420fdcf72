"""One stream of requests and responses, forwarded in both directions at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2

from heartvoice.errors import HeartvoiceError, InvalidRequestError
from heartvoice.gateway.access_log import Call
from heartvoice.gateway.methods import Method
from heartvoice.gateway.rate_limits import Quota
from heartvoice.resource_errors import as_resource_error

if TYPE_CHECKING:
    from heartvoice.gateway.proxy import Proxy

MAX_ERROR_BYTES = 16_384
"""Responses above this size in bytes are payloads and are not inspected."""
SHARED_MEMORY = b"shared memory"


class Stream:
    """One `ModelStreamInfer` with concurrent requests and responses."""

    def __init__(self, proxy: Proxy, method: Method, call: Call, quota: Quota, context: Any) -> None:
        self._proxy, self._method, self._call, self._quota, self._context = proxy, method, call, quota, context
        self._writing = asyncio.Lock()

    async def run(self, upstream: Any) -> None:
        """Forward both directions until the server ends the stream."""
        stream = upstream(**self._proxy.call_options(self._context))
        up = asyncio.create_task(self._up(stream))
        try:
            while (response := await stream.read()) is not grpc.aio.EOF:
                async with self._writing:  # one response at a time: the next one is read after this was sent
                    await self._proxy.send(self._call, self._context, self._without_names(response))
            code, trailing = await stream.code(), await stream.trailing_metadata()
            if code is not grpc.StatusCode.OK:
                raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, await stream.details())
            if trailing:
                self._context.set_trailing_metadata(tuple(trailing))
        except asyncio.CancelledError:
            if up.done() and not up.cancelled() and (error := up.exception()) is not None:
                raise error from None  # the other direction failed, and cancelled this one
            raise
        finally:
            up.cancel()
            self._proxy.drain_and_cancel(stream)

    def _without_names(self, response: bytes) -> bytes:
        """Return a response unchanged, except for Triton's errors that name a region of shared memory."""
        if len(response) > MAX_ERROR_BYTES or SHARED_MEMORY not in response:
            return response
        answer = service_pb2.ModelStreamInferResponse.FromString(response)
        used_up = as_resource_error(self._call.model, answer.error_message)
        if used_up is None:
            return response
        answer.error_message = used_up.wire()
        said: bytes = answer.SerializeToString()
        return said

    async def _up(self, stream: Any) -> None:
        try:
            while (message := await self._context.read()) is not grpc.aio.EOF:
                if (admitted := await self._admitted(message)) is not None:
                    await stream.write(admitted)
            await stream.done_writing()
        except asyncio.CancelledError:
            raise
        except asyncio.InvalidStateError:
            pass  # the server has ended the stream: `run` reports the status
        except BaseException:
            stream.cancel()
            raise

    async def _admitted(self, message: bytes) -> bytes | None:
        """Check a request and return what goes on; a refusal is a response in the stream, which continues."""
        proxy, call = self._proxy, self._call
        try:
            if call.requests >= self._quota.limits.requests_per_stream:
                raise InvalidRequestError(
                    f"requests: expected at most {self._quota.limits.requests_per_stream} in a stream, got one more"
                )
            return await proxy.admit(self._method, message, call, self._quota)
        except HeartvoiceError as error:
            proxy.refused(call, error)
            answer = service_pb2.ModelStreamInferResponse(error_message=error.wire())
            async with self._writing:
                await proxy.send(call, self._context, answer.SerializeToString())
            return None
