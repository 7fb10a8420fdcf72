"""The proxy: authenticates, admits, checks and forwards each call; returns responses unchanged."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio

from heartvoice.contracts.kserve import ENDED_EARLY
from heartvoice.contracts.tensors import CALLER
from heartvoice.contracts.types import ModelSpec
from heartvoice.errors import (
    EngineError,
    HeartvoiceError,
    InvalidRequestError,
    ModelUnavailableError,
    QuotaError,
    UnauthenticatedError,
    UnknownModelError,
    codes_of,
)
from heartvoice.gateway.access_log import Call, Metrics
from heartvoice.gateway.authentication import ANONYMOUS
from heartvoice.gateway.methods import DENIED, METHODS, Method
from heartvoice.gateway.own_answers import OwnAnswers
from heartvoice.gateway.rate_limits import Limits, Quota
from heartvoice.gateway.reflection import make_reflection
from heartvoice.gateway.registered_voices import RegisteredVoices
from heartvoice.gateway.request_parser import split, with_texts
from heartvoice.gateway.streams import Stream
from heartvoice.redaction import traceback_without_messages
from heartvoice.resource_errors import as_resource_error

log = logging.getLogger(__name__)

PASSED_HEADERS = frozenset({"traceparent", "tracestate"})
"""Forwarded headers of a caller. They exclude its token and the server's admin key."""
PROBES = "probes"
"""Name for callers without authentication. They have no limit, so no caller can block others' health checks."""
PROBE_S = 10.0
WATCH_S = 1.0
DRAIN_TIMEOUT_S, DRAIN_IDLE_S = 5.0, 0.5
"""Limits in seconds for draining an abandoned stream before it is cancelled: total time, and pause between responses.
A stream without unread responses is cancelled at once."""
REFUSAL_S = 0.02
"""Seconds between headers and status of a stream that is refused before its first request: grpc.aio clients lose a
status that overtakes their request and report INTERNAL instead (1.85)."""
_REFUSALS: dict[type[HeartvoiceError], str] = {
    InvalidRequestError: "request",
    UnknownModelError: "model",
    QuotaError: "quota",
    UnauthenticatedError: "authentication",
    ModelUnavailableError: "registry",
    EngineError: "registry",
}
"""Metric label of each refusal."""
_UNREACHABLE = ("failed to connect", "Connection refused", "Socket closed", "recvmsg:", "Connection reset")


class Proxy(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Forwards calls to one server."""

    def __init__(
        self,
        upstream: Any,
        name_caller: Callable[[Any], str],
        models: Mapping[str, ModelSpec],
        limits: Limits,
        metrics: Metrics,
        voices: RegisteredVoices | None = None,
        *,
        registered_only: bool = False,
    ) -> None:
        """Prepare the handlers.

        Args:
            upstream: the `grpc.aio` channel to the server.
            name_caller: returns the caller of a call's context, or raises UnauthenticatedError.
            models: the models that callers may reach.
            limits: limits of each caller.
            metrics: counts the calls.
            voices: of callers; None if there is no registry.
            registered_only: refuse every voice but registered ones.
        """
        self._voices, self._registered_only = voices, registered_only
        self._name_caller, self._models, self._limits, self._metrics = name_caller, models, limits, metrics
        self.answers, self._reflect = OwnAnswers(upstream, models), make_reflection()
        self._quotas: dict[str, Quota] = {}
        self._live: set[Call] = set()
        metrics.live.set_function(lambda: len(self._live))
        self._leaving: set[asyncio.Task[None]] = set()
        # Requests are handled as a stream, which is the same on the wire. A call is thus authenticated and admitted
        # before its first message is received. The response of a unary call is not a stream: message and status are
        # sent together, which saves a system call, a thread's wake-up and a turn of the loop. With identity
        # serializers messages are bytes.
        self._handlers = {
            path: (
                grpc.stream_stream_rpc_method_handler(partial(self._handle, method, upstream.stream_stream(path)))
                if method.streamed
                else grpc.stream_unary_rpc_method_handler(partial(self._handle, method, upstream.unary_unary(path)))
            )
            for path, method in METHODS.items()
        }
        self._denied = {path: grpc.stream_stream_rpc_method_handler(partial(self._deny, path)) for path in DENIED}

    def service(self, details: Any) -> Any:
        """Return the handler of a call; None is UNIMPLEMENTED."""
        return self._handlers.get(details.method) or self._denied.get(details.method)

    @property
    def n_live(self) -> int:
        """Calls in progress."""
        return len(self._live)

    async def watch(self) -> None:
        """End calls that wait too long for their caller. Runs until it is cancelled."""
        limits = self._limits
        while True:
            await asyncio.sleep(WATCH_S)
            now = time.monotonic()
            for call in list(self._live):
                if call.requests == 0 and now - call.began > limits.receive_s:
                    call.end(f"{call.method}: expected a request within {limits.receive_s:g} s, got none")
                elif call.writing_since is not None and now - call.writing_since > limits.stalled_s:
                    call.end(f"{call.method}: a response was not read for {limits.stalled_s:g} s")

    async def _deny(self, path: str, _: Any, context: Any) -> None:
        call = self._begin(path.rpartition("/")[2], context)
        try:
            call.caller = self._name_caller(context)
            text = f"{call.method}: not offered by this gateway"
            self._metrics.refused("method")
            await self._abort(call, context, grpc.StatusCode.PERMISSION_DENIED, text)
        except UnauthenticatedError as error:
            await self._refuse(call, context, error)

    def _begin(self, method: str, context: Any, *, streamed: bool = False) -> Call:
        task = asyncio.current_task()
        if task is None:
            raise EngineError("a call must be handled in a task")
        call = Call(method, streamed, task, address_of(context.peer()))
        self._live.add(call)

        def ended(_: object) -> None:
            self._live.discard(call)
            if call.quota is not None:
                call.quota.end()
            self._metrics.ended(call)

        # The call ends only now: a handler may return before a stalled caller has read its status.
        context.add_done_callback(ended)
        return call

    async def _handle(self, method: Method, upstream: Any, _: Any, context: Any) -> bytes | None:
        """Handle one call; return the response if it is unary."""
        call = self._begin(method.name, context, streamed=method.streamed)
        if method.open:
            call.caller = PROBES
        try:
            quota = None if method.open else self._admit_call(call, context)
            answer = await self._serve(method, upstream, call, quota, context)
            call.code = "OK"
            return answer
        except HeartvoiceError as error:
            await self._refuse(call, context, error)
        except grpc.aio.AioRpcError as error:
            await self._pass_status(call, context, error)
        except grpc.aio.InternalError:
            log.debug("%s: the caller has left", call.method)  # a pending read or write
            if not method.streamed:
                raise  # None means no response
        except asyncio.CancelledError:
            if not call.overdue:
                raise
            log.info("ended a call of %s: %s", call.caller, call.overdue)
            await self._abort(call, context, grpc.StatusCode.DEADLINE_EXCEEDED, call.overdue)
        except Exception as error:
            log.error("%s: a fault of the gateway's own, %s", call.method, traceback_without_messages(error))
            await self._abort(call, context, grpc.StatusCode.INTERNAL, "internal error; see the gateway's log")
        return None

    async def _serve(
        self, method: Method, upstream: Any, call: Call, quota: Quota | None, context: Any
    ) -> bytes | None:
        if not method.streamed:
            return await self._unary(method, upstream, call, quota, context)
        if quota is None:
            await self._watch_health(method, call, context)
        elif method.own:
            await self._reflection(method, call, quota, context)
        else:
            await Stream(self, method, call, quota, context).run(upstream)
        return None

    def _admit_call(self, call: Call, context: Any) -> Quota:
        """Authenticate the caller, and count the call until its end."""
        call.caller = self._name_caller(context)
        quota = self._quotas.get(call.caller)
        if quota is None:
            quota = self._quotas[call.caller] = Quota(call.caller, self._limits)
        quota.begin()
        call.quota = quota
        return quota

    async def _unary(self, method: Method, upstream: Any, call: Call, quota: Quota | None, context: Any) -> bytes:
        answer: bytes
        message = await self._request(method, call, quota, context)
        if method.own:
            answer = await self.answers.answer(method.name, message)
            call.responses, call.bytes_out = 1, len(answer)
            return answer
        answering = upstream(message, **self.call_options(context, PROBE_S if method.open else math.inf))
        del message  # the call's record has it
        try:
            answer = await answering
            trailing = await answering.trailing_metadata()
        finally:
            answering.cancel()  # no effect on a finished call
        if trailing:
            context.set_trailing_metadata(tuple(trailing))
        # Nothing is left to end from here on: a caller that does not read keeps this response and its place among
        # its concurrent calls until it reads or its connection ends.
        call.responses, call.bytes_out = 1, len(answer)
        return answer

    async def _request(self, method: Method, call: Call, quota: Quota | None, context: Any) -> bytes:
        """Return the only request of a call, admitted."""
        message: bytes = await context.read()
        if message is grpc.aio.EOF:
            raise InvalidRequestError(f"{method.name}: expected a request, got none")
        return await self.admit(method, message, call, quota)

    async def _watch_health(self, method: Method, call: Call, context: Any) -> None:
        message = await self._request(method, call, None, context)
        async with aclosing(self.answers.watch(message)) as statuses:
            async for status in statuses:
                await self.send(call, context, status)

    async def _reflection(self, method: Method, call: Call, quota: Quota, context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            await self.send(call, context, self._reflect(await self.admit(method, message, call, quota)))

    async def admit(self, method: Method, message: bytes, call: Call, quota: Quota | None) -> bytes:
        """Count and check a request, and return what goes on to the server.

        It is the same, but for a voice that it names by id, and the caller's name for what may be marked.

        Raises:
            HeartvoiceError: it is refused.
        """
        call.requests += 1
        call.bytes_in += len(message)
        if quota is not None:
            quota.request(len(message))
        voice_id = method.check(message, self._models, call, registered_only=self._registered_only)
        if voice_id and self._voices is not None and quota is not None:
            message = await self._voices.resolve(message, voice_id, call, quota)
        if call.caller == ANONYMOUS or not method.infers or CALLER not in self._models[call.model].inputs:
            return message
        return with_texts(split(message), {CALLER: call.caller.encode()})

    async def send(self, call: Call, context: Any, message: bytes) -> None:
        """Send a response; return once it is sent, which may be never for a caller that does not read."""
        call.writing_since = time.monotonic()
        await context.write(message)
        call.writing_since = None
        call.responses += 1
        call.bytes_out += len(message)

    def drain_and_cancel(self, stream: Any) -> None:
        """Read a stream's ready responses, then cancel it: Triton never frees unsent responses.

        Ready responses arrive within milliseconds; after a pause, the rest does not exist yet.
        """

        async def read_and_cancel() -> None:
            until = time.monotonic() + DRAIN_TIMEOUT_S
            with suppress(asyncio.TimeoutError, asyncio.InvalidStateError, grpc.RpcError):
                while time.monotonic() < until:
                    if await asyncio.wait_for(stream.read(), DRAIN_IDLE_S) is grpc.aio.EOF:
                        break
            stream.cancel()

        if stream.done():
            return
        task = asyncio.create_task(read_and_cancel())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def wait_drained(self) -> None:
        """Wait for the streams that are being drained."""
        await asyncio.gather(*self._leaving, return_exceptions=True)

    def call_options(self, context: Any, most_s: float = math.inf) -> dict[str, Any]:
        """Return deadline and headers of a call to the server."""
        left_s = context.time_remaining()
        limits_s = (self._limits.call_s, most_s, math.inf if left_s is None else left_s)
        headers = tuple(pair for pair in context.invocation_metadata() or () if pair[0] in PASSED_HEADERS)
        return {"timeout": min(limits_s), "metadata": headers}

    def refused(self, call: Call, error: HeartvoiceError) -> None:
        """Count a refusal and record it for the access log."""
        call.refusal = str(error)
        self._metrics.refused(_REFUSALS[type(error)])

    async def _refuse(self, call: Call, context: Any, error: HeartvoiceError) -> None:
        self.refused(call, error)
        await self._abort(call, context, grpc.StatusCode[codes_of(error).status], str(error))

    async def _pass_status(self, call: Call, context: Any, error: grpc.aio.AioRpcError) -> None:
        """Forward the server's status; without a server, report only that."""
        details, code = error.details() or "", error.code()
        if code is grpc.StatusCode.UNAVAILABLE and any(text in details for text in _UNREACHABLE):
            log.warning("the server cannot be reached: %s", details)
            details = "the server behind the gateway cannot be reached"
        elif details == ENDED_EARLY:
            code, details = grpc.StatusCode.UNAVAILABLE, "the server ended the call before it had the request"
        elif (used_up := as_resource_error(call.model or call.method, details)) is not None:
            code, details = grpc.StatusCode.UNAVAILABLE, str(used_up)
        await self._abort(call, context, code, details, error.trailing_metadata())

    async def _abort(self, call: Call, context: Any, code: Any, details: str, trailing: Any = ()) -> None:
        call.code = code.name
        if call.streamed and not call.requests:
            await context.send_initial_metadata(())
            await asyncio.sleep(REFUSAL_S)
        await context.abort(code, details, tuple(trailing or ()))


def address_of(peer: str) -> str:
    """Return the address and port of gRPC's name of a caller, such as `ipv6:%5B::1%5D:50000`; "" of a Unix socket."""
    scheme, _, address = unquote(peer).partition(":")
    return address if scheme in ("ipv4", "ipv6") else ""
