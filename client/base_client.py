"""The base of the synchronous client: gRPC channel, deadlines, retries and the end of calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, TypeVar

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from heartvoice.client import wire
from heartvoice.client.arguments import ConnectionArguments, Unpack
from heartvoice.client.connection import READY_TIMEOUT_S, Connection
from heartvoice.client.messages import DEFAULT_URL
from heartvoice.client.resumption import Resumption
from heartvoice.client.retries import RetryState
from heartvoice.client.shared_memory import SharedMemory
from heartvoice.client.stream_reader import DRAIN_IDLE_S, DRAIN_TIMEOUT_S, StallGuard, StreamReader
from heartvoice.client.transport import SyncStub, Transport
from heartvoice.errors import HeartvoiceError, InvalidRequestError, ModelUnavailableError, RequestCancelledError

M = TypeVar("M")
T = TypeVar("T")
_Self = TypeVar("_Self", bound="BaseClient")


class BaseClient:
    """Sends one request, streamed or not, over a connection to one server, with deadline and retries."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        shared_memory: bool = False,
        transport: Transport | None = None,
        **connection: Unpack[ConnectionArguments],
    ) -> None:
        """Prepare the connection; it is made by the first call.

        Args:
            url: host:port of the gRPC endpoint, or another gRPC target such as unix:/path.
            tls: encrypt, trusting the system's roots. Implied by any of the next three.
            root_certificates: PEM file or contents of the roots to trust.
            private_key: PEM of the client's key, for mutual TLS.
            certificate_chain: PEM of the client's certificate.
            keepalive_s: ping a silent server after so many seconds. Off by default: Triton's own default tolerates
                one ping in 300 s and drops callers that ping more often.
            keepalive_timeout_s: give the connection up if a ping is not answered by then.
            timeout_s: deadline of a call that names none, retries included; math.inf for none. By default 600 s and
                60 s more for each second of audio that the call brings or asks for.
            stall_timeout_s: give a stream up that is silent for so long: the server speaks every second while it lives.
            retries: further tries of a call without connection or room, and how often a call is repeated that a dying
                process lost. It gets a minute to begin again, and a stream goes on where it broke off; 0 forbids it.
            metadata: headers of every call.
            token_file: holds the token that a gateway knows this caller by; None takes that of the environment's
                HEARTVOICE_TOKEN, if there is one.
            registry: folder of registered voices: `voice="voice_..."` is looked up there. None sends such an id to the
                server, a gateway with a registry. Needs the extra `trust`.
            owner: whose voices they are; None is the environment's HEARTVOICE_OWNER, else the user's name.
            shared_memory: hand inputs over 1 MB to a server on this machine by system shared memory, which it must
                allow to your user: `heartvoice serve --shared-memory`.
            transport: answers every request in place of a server at `url`, such as a fake in your tests.
        """
        if transport is not None and shared_memory:
            raise InvalidRequestError("shared_memory: expected a gRPC server, got a transport")
        self._shared = SharedMemory(url) if shared_memory else None
        self._connection = Connection(url, **connection)
        self._transport = transport
        self._channel = _channel(self._connection) if transport is None else None
        if transport is None:
            self._stub: Any = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        else:
            self._stub = SyncStub(transport)
        self._closed = threading.Event()

    def server_ready(self, *, timeout_s: float = READY_TIMEOUT_S) -> bool:
        """True if the server answers and all its models are loaded; False if it cannot be reached."""
        return self._ready(self._stub.ServerReady, service_pb2.ServerReadyRequest(), timeout_s)

    def model_ready(self, name: str = "song", *, timeout_s: float = READY_TIMEOUT_S) -> bool:
        """True if the model is loaded. Triton says yes even if its process has died since."""
        return self._ready(self._stub.ModelReady, service_pb2.ModelReadyRequest(name=name), timeout_s)

    def close(self) -> None:
        """Close the connection; calls under way end with RequestCancelledError and are cancelled on the server."""
        self._closed.set()
        if self._channel is not None:
            self._channel.close()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stream(
        self, message: Any, spec: wire.StreamSpec[M], timeout_s: float | None, events: bool
    ) -> Generator[M, None, None]:
        return self._tries(message, spec, self._connection.attempts(spec.model.name, timeout_s, message), events)

    def _tries(
        self, message: Any, spec: wire.StreamSpec[M], attempts: RetryState, events: bool
    ) -> Generator[M, None, None]:
        attempts.begin()
        message.id = attempts.request_id
        resumption = Resumption[M](attempts)
        while True:
            reader = StreamReader(spec, resumption, events=events)
            try:
                yield from self._attempt(message, attempts, reader)
            except HeartvoiceError as error:
                self._wait(attempts.delay_after(error, received=reader.received))
            else:
                return

    def _attempt(self, message: Any, attempts: RetryState, reader: StreamReader[M]) -> Generator[M, None, None]:
        with self._sent(message) as sent:
            yield from self._read(sent, attempts, reader)

    def _read(self, message: Any, attempts: RetryState, reader: StreamReader[M]) -> Generator[M, None, None]:
        call = self._call(self._stub.ModelStreamInfer, iter((message,)), attempts)
        guard = StallGuard(call.cancel, self._connection.stall_timeout_s)
        try:
            while True:
                with guard.waiting():
                    response = next(call, None)
                if response is None:
                    break
                yield from reader.feed(response)
        except GeneratorExit:
            if self._transport is None:
                _drain(call)
            raise
        except grpc.RpcError as error:
            if guard.stalled:
                raise attempts.stalled(self._connection.stall_timeout_s) from error
            raise self._failure(error, attempts) from error
        finally:
            guard.close()
            call.cancel()  # without effect on a call that has ended
        reader.finish()

    def _infer(self, message: Any, timeout_s: float | None, decode: Callable[[Any, int], T]) -> T:
        attempts = self._connection.attempts(message.model_name, timeout_s, message)
        message.id = attempts.request_id
        while True:
            try:
                with self._sent(message) as sent:
                    return decode(self._unary(self._stub.ModelInfer, sent, attempts), attempts.count)
            except HeartvoiceError as error:
                self._wait(attempts.delay_after(error, received=False))

    def _sent(self, message: Any) -> AbstractContextManager[Any]:
        """The message to send during the block: large inputs may be in shared memory."""
        return nullcontext(message) if self._shared is None else self._shared.sent(message)

    def _unary(self, method: Any, message: Any, attempts: RetryState) -> Any:
        call = self._call(method.future, message, attempts)
        try:
            return call.result()
        except grpc.RpcError as error:
            raise self._failure(error, attempts) from error
        except grpc.FutureCancelledError as error:
            raise RequestCancelledError(f"{attempts.what}: cancelled") from error
        finally:
            call.cancel()

    def _call(self, method: Any, argument: Any, attempts: RetryState) -> Any:
        timeout_s = attempts.remaining_s()
        if self._closed.is_set():
            raise attempts.closed()
        try:
            return method(argument, timeout=timeout_s, metadata=self._connection.metadata)
        except ValueError as error:  # closed in between
            raise attempts.closed() from error

    def _failure(self, error: Any, attempts: RetryState) -> HeartvoiceError:
        if self._closed.is_set():
            return attempts.closed()
        return attempts.failure(error.code().name, error.details() or "")

    def _wait(self, delay_s: float) -> None:
        """Sleep before the next try; the next try notices if the client was closed meanwhile."""
        self._closed.wait(delay_s)

    def _ready(self, method: Any, message: Any, timeout_s: float) -> bool:
        attempts = self._connection.attempts("server", timeout_s)
        try:
            return bool(self._unary(method, message, attempts).ready)
        except ModelUnavailableError:
            return False


def _channel(connection: Connection) -> Any:
    if connection.credentials is None:
        return grpc.insecure_channel(connection.url, connection.options)
    return grpc.secure_channel(connection.url, connection.credentials, connection.options)


def _drain(call: Any) -> None:
    """Read what the server has ready for a stream that is left."""
    guard = StallGuard(call.cancel, DRAIN_IDLE_S)
    until = time.monotonic() + DRAIN_TIMEOUT_S
    try:
        while time.monotonic() < until:
            with guard.waiting():
                if next(call, None) is None:
                    return
    except grpc.RpcError:
        pass  # it had ended, or it is the guard's doing
    finally:
        guard.close()
