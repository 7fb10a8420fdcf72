"""The synchronous client: one method for each kind of job."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial

from heartvoice.client import wire
from heartvoice.client.arguments import (
    CoverArguments,
    RenderArguments,
    RenderCoverArguments,
    SongArguments,
    Unpack,
)
from heartvoice.client.base_client import BaseClient
from heartvoice.client.caller_names import caller_names, input_names, job_names, named_stream
from heartvoice.client.collect import SongCollector, StemsCollector
from heartvoice.client.messages import Embedding, Event, Message, Report, Song, StemsMessage
from heartvoice.client.recordings import RecordingLike, as_recording
from heartvoice.client.registered_voices import RegisteredVoice
from heartvoice.client.requests import JobRequest, SongRequest, as_cover, as_request
from heartvoice.client.stems import Stems
from heartvoice.client.voices import Voices
from heartvoice.contracts.field_checks import SPEECH_LIMITS_S, VOICE_LIMITS_S


class Client(BaseClient):
    """Songs, covers, stems and embeddings from a heartvoice server over gRPC. Threads may share it; close it.

    Settings are keyword arguments by their contract names, such as `duration_s=30, seed=7`: `SongArguments` and
    `CoverArguments` list them; ranges are in `contracts.SONG.settings` and `contracts.COVER.settings`. Recordings are
    a path, the bytes of an encoded file, or (float samples [N] or [C, N], sample_rate_hz); files are sent as they are.
    Every call can raise:

    * InvalidRequestError: the input is wrong; mostly found before anything is sent. For an unknown keyword it is
      also a TypeError.
    * ModelUnavailableError: no connection, no such model, or no room, after the retries.
    * DeadlineError: `timeout_s` passed; the server has been told to stop.
    * RequestCancelledError: `close` was called, or the server cancelled.
    * EngineError: the server failed, or broke the protocol.
    """

    @property
    def voices(self) -> Voices:
        """The registered voices of `registry` and `owner` on this machine. A purge has the server forget the voice."""
        return Voices(self._connection.registry, self._connection.owner, forget=self.forget_voice)

    def stream(
        self,
        lyrics: str | SongRequest = "",
        tags: str = "",
        *,
        events: bool = False,
        timeout_s: float | None = None,
        **arguments: Unpack[SongArguments],
    ) -> Generator[Message, None, None]:
        """Make a song and yield its messages as they come; closing the generator cancels it on the server.

        The input is checked at once; the request is sent, and its deadline begins, with the first `next`.

        Args:
            lyrics: text, or a whole `SongRequest` in place of every other song argument.
            tags: text, comma separated.
            events: also yield progress events.
            timeout_s: deadline of the whole call; None is the client's.
            arguments: everything else, described in `SongArguments`: `voice` with `consent`, `codes`, `duration_s`,
                `seed`, ... None is the server's default.

        Yields:
            AudioChunk without gaps, likewise CodesChunk if `return_codes` and StemsChunk if `stems` is set, Event if
            asked, and at last one Report.
        """
        request = as_request(lyrics, tags, **arguments)
        return self._job(request, timeout_s, events)

    def song(
        self,
        lyrics: str | SongRequest = "",
        tags: str = "",
        *,
        on_event: Callable[[Event], None] | None = None,
        timeout_s: float | None = None,
        **arguments: Unpack[SongArguments],
    ) -> Song:
        """Make a song and wait for all of it, as `stream` does; `on_event` is called with every progress event."""
        request = as_request(lyrics, tags, **arguments)
        return _collect(self._job(request, timeout_s, on_event is not None), on_event).song()

    def render(
        self,
        lyrics: str | SongRequest = "",
        tags: str = "",
        *,
        file_format: str = "wav",
        timeout_s: float | None = None,
        **arguments: Unpack[RenderArguments],
    ) -> tuple[bytes, Report]:
        """Make a song on the server and return it as one encoded file: wav, flac, mp3 or ogg. Else as `stream`."""
        request = as_request(lyrics, tags, **arguments)
        return self._render(request, file_format, timeout_s)

    def stream_cover(
        self,
        recording: RecordingLike,
        voice: RecordingLike | RegisteredVoice,
        *,
        consent: str = "",
        events: bool = False,
        timeout_s: float | None = None,
        **arguments: Unpack[CoverArguments],
    ) -> Generator[Message, None, None]:
        """Replace a recording's singer and yield the messages as they come, otherwise as `stream`.

        Args:
            recording: a song of 1 to 600 s; see the class.
            voice: 3 to 60 s of the voice that shall sing, speaking or singing; or a registered voice's id, voice_...
            consent: who consents to the use of the voice, and how, in 1 to 500 characters. Kept in the report. A
                registered voice has a record in its place.
            events: also yield progress events.
            timeout_s: deadline of the whole call; None is the client's.
            arguments: everything else, described in `CoverArguments`; None is the server's default.

        Yields:
            AudioChunk without gaps, likewise StemsChunk if `stems` is set, Event if asked, and at last one Report.
        """
        request = as_cover(recording, voice, consent=consent, **arguments)
        return self._job(request, timeout_s, events)

    def cover(
        self,
        recording: RecordingLike,
        voice: RecordingLike | RegisteredVoice,
        *,
        consent: str = "",
        on_event: Callable[[Event], None] | None = None,
        timeout_s: float | None = None,
        **arguments: Unpack[CoverArguments],
    ) -> Song:
        """Replace a recording's singer and wait for all of it; see `stream_cover`, and `song` for `on_event`."""
        request = as_cover(recording, voice, consent=consent, **arguments)
        stream = self._job(request, timeout_s, on_event is not None)
        return _collect(stream, on_event).song(request.recording)

    def render_cover(
        self,
        recording: RecordingLike,
        voice: RecordingLike | RegisteredVoice,
        *,
        consent: str = "",
        file_format: str = "wav",
        timeout_s: float | None = None,
        **arguments: Unpack[RenderCoverArguments],
    ) -> tuple[bytes, Report]:
        """Make a cover on the server and return it as one encoded file, as `render` does. Else as `stream_cover`."""
        request = as_cover(recording, voice, consent=consent, **arguments)
        return self._render(request, file_format, timeout_s)

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
        checked = as_recording(recording)
        message = wire.encode_stems(checked, sources, events=True)
        stream = self._stream(message, wire.stems_stream(sources), timeout_s, events)
        return named_stream(stream, input_names(checked))

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
        return collector.stems(checked)

    def embed(
        self, recording: RecordingLike, *, reference_check: str | None = None, timeout_s: float | None = None
    ) -> Embedding:
        """Embed the voice of a recording as a vector that can be compared; see `Embedding.cosine`.

        Args:
            recording: speech or singing.
            reference_check: what a second voice or music in it does, as for a cover; default "off".
            timeout_s: None is the client's own.
        """
        checked = as_recording(recording, limits_s=SPEECH_LIMITS_S)
        with caller_names(input_names(checked)):
            return self._infer(wire.encode_embed(checked, reference_check), timeout_s, wire.decode_embed)

    def forget_voice(self, voice: RecordingLike, *, timeout_s: float | None = None) -> int:
        """Have the server forget what it keeps of a voice in memory, and return how many entries that was.

        Jobs in progress go on with what they have; what they make of the voice in the next hour is not kept. A gateway
        refuses it: tell the server behind it. `voices.purge` calls this.

        Args:
            voice: the reference that songs were asked for with, as the same file or samples.
            timeout_s: None is the client's own.

        Raises:
            ModelMissingError: the server converts no voices.
        """
        checked = as_recording(voice, field="voice", limits_s=VOICE_LIMITS_S)
        with closing(
            self._stream(wire.encode_forget(checked), wire.forget_stream(), timeout_s, events=False)
        ) as stream:
            return sum(report.forgotten for report in stream)

    def _job(self, request: JobRequest, timeout_s: float | None, events: bool) -> Generator[Message, None, None]:
        request = self._connection.sung(request)
        # Always asked for: with events on, a server that lives is never silent for long.
        message = wire.encode_job(request, events=True)
        stream = self._stream(message, wire.job_stream(request), timeout_s, events)
        return named_stream(stream, job_names(request))

    def _render(self, request: JobRequest, file_format: str, timeout_s: float | None) -> tuple[bytes, Report]:
        request = self._connection.sung(request)
        message = wire.encode_render(request, file_format)
        with caller_names(job_names(request)):
            return self._infer(message, timeout_s, partial(wire.decode_render, request=request))


def _collect(stream: Generator[Message, None, None], on_event: Callable[[Event], None] | None) -> SongCollector:
    """Collect a whole stream; an exception of `on_event` cancels it."""
    collector = SongCollector()
    with closing(stream) as messages:
        for message in messages:
            collector.add(message)
            if on_event is not None and isinstance(message, Event):
                on_event(message)
    return collector
