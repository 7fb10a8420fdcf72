"""The synchronous client: transport only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from heartvoice.client import wire
from heartvoice.client.messages import (
    DEFAULT_STALL_TIMEOUT_S,
    DEFAULT_TIMEOUT_S,
    DEFAULT_URL,
    Array,
    Event,
    Message,
    Report,
    SettingValue,
    Song,
    SongRequest,
    as_request,
)
from heartvoice.client.session import (
    READY_TIMEOUT_S,
    Attempts,
    Connection,
    Pem,
    SongCollector,
    StallGuard,
    StreamReader,
)
from heartvoice.errors import HeartvoiceError, ModelUnavailableError, RequestCancelledError


class Client:
    """Songs from a heartvoice server over gRPC. May be shared by threads; close it, or use `with`.

    Settings are keyword arguments by their contract names, such as `duration_s=30, seed=7`; ranges are in
    `contracts.SONG.settings`. Every call can raise:

    * InvalidRequestError: the input is wrong; mostly found before anything is sent.
    * ModelUnavailableError: no connection, no such model, or no room, after the retries.
    * DeadlineError: `timeout_s` passed; the server has been told to stop.
    * RequestCancelledError: `close` was called, or the server cancelled.
    * EngineError: the server failed, or broke the protocol.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        tls: bool = False,
        root_certificates: Pem | None = None,
        private_key: Pem | None = None,
        certificate_chain: Pem | None = None,
        keepalive_s: float | None = None,
        keepalive_timeout_s: float = 20.0,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        stall_timeout_s: float = DEFAULT_STALL_TIMEOUT_S,
        retries: int = 3,
        metadata: Sequence[tuple[str, str]] = (),
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
            timeout_s: deadline of a call that names none, retries included; math.inf for none.
            stall_timeout_s: give a stream up that is silent for so long: the server speaks every second while it lives.
            retries: further tries of a call that never began: no connection, or refused as UNAVAILABLE.
            metadata: headers of every call, such as ("authorization", "Bearer ...").
        """
        self._connection = Connection(
            url, tls, root_certificates, private_key, certificate_chain, keepalive_s, keepalive_timeout_s, timeout_s,
            stall_timeout_s, retries, tuple(metadata),
        )  # fmt: skip
        credentials, options = self._connection.credentials, self._connection.options
        if credentials is None:
            self._channel = grpc.insecure_channel(url, options)
        else:
            self._channel = grpc.secure_channel(url, credentials, options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._closed = threading.Event()

    def stream(
        self,
        lyrics: str | SongRequest = "",
        tags: str = "",
        *,
        style: Array | None = None,
        codes: Array | None = None,
        events: bool = False,
        timeout_s: float | None = None,
        **settings: SettingValue | None,
    ) -> Generator[Message, None, None]:
        """Make a song and yield its messages as they come; closing the generator cancels it on the server.

        The input is checked at once; the request is sent, and its deadline begins, with the first `next`.

        Args:
            lyrics: text, or a whole `SongRequest` in place of every other song argument.
            tags: text, comma separated.
            style: float32 [D], HeartMuLa's style slot.
            codes: int32 [8, T] of a finished song, to be decoded again.
            events: also yield progress events.
            timeout_s: deadline of the whole call; None is the client's.
            settings: see `contracts.SONG.settings`; None is the server's default.

        Yields:
            AudioChunk and CodesChunk without gaps, Event if asked, and at last one Report.
        """
        # Always asked for: with events on, a server that lives is never silent for long.
        message = wire.encode_song(as_request(lyrics, tags, style, codes, settings), events=True)
        return self._stream(message, self._connection.attempts("song", timeout_s), events)

    def song(
        self,
        lyrics: str | SongRequest = "",
        tags: str = "",
        *,
        style: Array | None = None,
        codes: Array | None = None,
        on_event: Callable[[Event], None] | None = None,
        timeout_s: float | None = None,
        **settings: SettingValue | None,
    ) -> Song:
        """Make a song and wait for all of it, as `stream` does; `on_event` is called with every progress event."""
        request = as_request(lyrics, tags, style, codes, settings)
        collector = SongCollector()
        with closing(self.stream(request, events=on_event is not None, timeout_s=timeout_s)) as messages:
            for message in messages:
                collector.add(message)
                if on_event is not None and isinstance(message, Event):
                    on_event(message)
        return collector.song()

    def render(
        self,
        lyrics: str | SongRequest = "",
        tags: str = "",
        *,
        file_format: str = "wav",
        style: Array | None = None,
        codes: Array | None = None,
        timeout_s: float | None = None,
        **settings: SettingValue | None,
    ) -> tuple[bytes, Report]:
        """Make a song on the server and return it as one encoded file: wav, flac, mp3 or ogg. Else as `stream`."""
        message = wire.encode_render(as_request(lyrics, tags, style, codes, settings), file_format)
        attempts = self._connection.attempts("render", timeout_s)
        message.id = attempts.request_id
        while True:
            try:
                return wire.decode_render(self._unary(self._stub.ModelInfer, message, attempts))
            except HeartvoiceError as error:
                self._wait(attempts.delay_after(error, received=False))

    def server_ready(self, *, timeout_s: float = READY_TIMEOUT_S) -> bool:
        """Whether the server answers and all its models are loaded; False if it cannot be reached."""
        return self._ready(self._stub.ServerReady, service_pb2.ServerReadyRequest(), timeout_s)

    def model_ready(self, name: str = "song", *, timeout_s: float = READY_TIMEOUT_S) -> bool:
        """Whether the model is loaded. Triton says yes even if its process has died since."""
        return self._ready(self._stub.ModelReady, service_pb2.ModelReadyRequest(name=name), timeout_s)

    def close(self) -> None:
        """Close the connection; calls under way end with RequestCancelledError and are cancelled on the server."""
        self._closed.set()
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stream(self, message: Any, attempts: Attempts, events: bool) -> Generator[Message, None, None]:
        attempts.begin()
        message.id = attempts.request_id
        while True:
            reader = StreamReader(events=events)
            try:
                yield from self._attempt(message, attempts, reader)
            except HeartvoiceError as error:
                self._wait(attempts.delay_after(error, received=reader.received))
            else:
                return

    def _attempt(self, message: Any, attempts: Attempts, reader: StreamReader) -> Generator[Message, None, None]:
        call = self._call(self._stub.ModelStreamInfer, iter((message,)), attempts)
        guard = StallGuard(call.cancel, self._connection.stall_timeout_s)
        try:
            while True:
                with guard.waiting():
                    response = next(call, None)
                if response is None:
                    break
                yield from reader.feed(response)
        except grpc.RpcError as error:
            if guard.stalled:
                raise attempts.stalled(self._connection.stall_timeout_s) from error
            raise self._failure(error, attempts) from error
        finally:
            guard.close()
            call.cancel()  # without effect on a call that has ended
        reader.finish()

    def _unary(self, method: Any, message: Any, attempts: Attempts) -> Any:
        call = self._call(method.future, message, attempts)
        try:
            return call.result()
        except grpc.RpcError as error:
            raise self._failure(error, attempts) from error
        except grpc.FutureCancelledError as error:
            raise RequestCancelledError(f"{attempts.what}: cancelled") from error
        finally:
            call.cancel()

    def _call(self, method: Any, argument: Any, attempts: Attempts) -> Any:
        timeout_s = attempts.remaining_s()
        if self._closed.is_set():
            raise attempts.closed()
        try:
            return method(argument, timeout=timeout_s, metadata=self._connection.metadata)
        except ValueError as error:  # closed in between
            raise attempts.closed() from error

    def _failure(self, error: Any, attempts: Attempts) -> HeartvoiceError:
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
