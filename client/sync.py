"""The synchronous client: transport only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from heartvoice.client import wire
from heartvoice.client.collect import SongCollector, StemsCollector
from heartvoice.client.messages import (
    DEFAULT_STALL_TIMEOUT_S,
    DEFAULT_TIMEOUT_S,
    DEFAULT_URL,
    Array,
    Embedding,
    Event,
    Message,
    Report,
    SettingValue,
    Song,
    SongRequest,
    StemsMessage,
    as_cover,
    as_request,
)
from heartvoice.client.recordings import RecordingLike, as_recording
from heartvoice.client.session import (
    READY_TIMEOUT_S,
    Attempts,
    Connection,
    Pem,
    StallGuard,
    StreamReader,
)
from heartvoice.client.stems import Stems
from heartvoice.errors import HeartvoiceError, ModelUnavailableError, RequestCancelledError

M = TypeVar("M")
T = TypeVar("T")


class Client:
    """Songs, covers, stems and embeddings from a heartvoice server over gRPC. Threads may share it; close it.

    Settings are keyword arguments by their contract names, such as `duration_s=30, seed=7`; ranges are in
    `contracts.SONG.settings` and `contracts.COVER.settings`. Recordings are a path, the bytes of an encoded file, or
    (float samples [N] or [C, N], sample_rate_hz); files are sent as they are. Every call can raise:

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
        return self._stream(message, wire.SONG_STREAM, timeout_s, events)

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
        return _collect(self.stream(request, events=on_event is not None, timeout_s=timeout_s), on_event).song()

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
        return self._infer(message, timeout_s, wire.decode_render)

    def stream_cover(
        self,
        recording: RecordingLike,
        voice: RecordingLike,
        *,
        consent: str,
        no_vocals: str | None = None,
        events: bool = False,
        timeout_s: float | None = None,
        **settings: SettingValue | None,
    ) -> Generator[Message, None, None]:
        """Replace a recording's singer and yield the messages as they come, otherwise as `stream`.

        Args:
            recording: a song of 1 to 600 s; see the class.
            voice: 3 to 60 s of the voice that shall sing, speaking or singing.
            consent: who consents to the use of the voice, and how, in 1 to 500 characters. Kept in the report.
            no_vocals: what a recording without vocals becomes: "error", "passthrough" (the server's default) or
                "convert". If it passes through, the report's `converted` is False.
            events: also yield progress events.
            timeout_s: deadline of the whole call; None is the client's.
            settings: see `contracts.COVER.settings`; None is the server's default.

        Yields:
            AudioChunk without gaps, Event if asked, and at last one Report.
        """
        message = wire.encode_cover(as_cover(recording, voice, consent, no_vocals, settings), events=True)
        return self._stream(message, wire.COVER_STREAM, timeout_s, events)

    def cover(
        self,
        recording: RecordingLike,
        voice: RecordingLike,
        *,
        consent: str,
        no_vocals: str | None = None,
        on_event: Callable[[Event], None] | None = None,
        timeout_s: float | None = None,
        **settings: SettingValue | None,
    ) -> Song:
        """Replace a recording's singer and wait for all of it; see `stream_cover`, and `song` for `on_event`."""
        request = as_cover(recording, voice, consent, no_vocals, settings)
        message = wire.encode_cover(request, events=True)
        stream = self._stream(message, wire.COVER_STREAM, timeout_s, on_event is not None)
        return _collect(stream, on_event).song(request.recording.origin)

    def render_cover(
        self,
        recording: RecordingLike,
        voice: RecordingLike,
        *,
        consent: str,
        file_format: str = "wav",
        no_vocals: str | None = None,
        timeout_s: float | None = None,
        **settings: SettingValue | None,
    ) -> tuple[bytes, Report]:
        """Make a cover on the server and return it as one encoded file, as `render` does. Else as `stream_cover`."""
        message = wire.encode_render(as_cover(recording, voice, consent, no_vocals, settings), file_format)
        return self._infer(message, timeout_s, partial(wire.decode_render, cover=True))

    def stream_stems(
        self,
        recording: RecordingLike,
        *,
        sources: Sequence[str] | str | None = None,
        events: bool = False,
        timeout_s: float | None = None,
    ) -> Generator[StemsMessage, None, None]:
        """Separate a recording and yield its stems as they are finished, otherwise as `stream`.

        Args:
            recording: at most 600 s; see the class.
            sources: which stems, such as ["vocals", "drums"] or "vocals,drums"; None is all that the server has.
            events: also yield progress events.
            timeout_s: deadline of the whole call; None is the client's.

        Yields:
            StemsChunk without gaps, Event if asked, and at last one StemsReport, which names the stems in their order.
        """
        message = wire.encode_stems(as_recording(recording), sources, events=True)
        return self._stream(message, wire.stems_stream(sources), timeout_s, events)

    def separate(
        self,
        recording: RecordingLike,
        *,
        sources: Sequence[str] | str | None = None,
        on_event: Callable[[Event], None] | None = None,
        timeout_s: float | None = None,
    ) -> Stems:
        """Separate a recording and wait for all of it; see `stream_stems`, which is for long ones.

        A minute of four stems takes 85 MB, and twice that for a moment.
        """
        checked = as_recording(recording)
        stream = self.stream_stems(checked, sources=sources, events=on_event is not None, timeout_s=timeout_s)
        collector = StemsCollector()
        with closing(stream) as messages:
            for message in messages:
                collector.add(message)
                if on_event is not None and isinstance(message, Event):
                    on_event(message)
        return collector.stems(checked.origin)

    def embed(self, recording: RecordingLike, *, timeout_s: float | None = None) -> Embedding:
        """Who speaks or sings in a recording, as a vector that can be compared; see `Embedding.cosine`."""
        return self._infer(wire.encode_embed(as_recording(recording)), timeout_s, wire.decode_embed)

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

    def _stream(
        self, message: Any, spec: wire.StreamSpec[M], timeout_s: float | None, events: bool
    ) -> Generator[M, None, None]:
        return self._tries(message, spec, self._connection.attempts(spec.model.name, timeout_s), events)

    def _tries(
        self, message: Any, spec: wire.StreamSpec[M], attempts: Attempts, events: bool
    ) -> Generator[M, None, None]:
        attempts.begin()
        message.id = attempts.request_id
        while True:
            reader = StreamReader(spec, events=events)
            try:
                yield from self._attempt(message, attempts, reader)
            except HeartvoiceError as error:
                self._wait(attempts.delay_after(error, received=reader.received))
            else:
                return

    def _attempt(self, message: Any, attempts: Attempts, reader: StreamReader[M]) -> Generator[M, None, None]:
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

    def _infer(self, message: Any, timeout_s: float | None, decode: Callable[[Any], T]) -> T:
        attempts = self._connection.attempts(message.model_name, timeout_s)
        message.id = attempts.request_id
        while True:
            try:
                return decode(self._unary(self._stub.ModelInfer, message, attempts))
            except HeartvoiceError as error:
                self._wait(attempts.delay_after(error, received=False))

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


def _collect(stream: Generator[Message, None, None], on_event: Callable[[Event], None] | None) -> SongCollector:
    """Take a whole stream; what `on_event` raises cancels it."""
    collector = SongCollector()
    with closing(stream) as messages:
        for message in messages:
            collector.add(message)
            if on_event is not None and isinstance(message, Event):
                on_event(message)
    return collector
