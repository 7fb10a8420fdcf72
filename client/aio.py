"""The asynchronous client: the methods of the synchronous one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

from heartvoice.client import wire
from heartvoice.client.aio_base_client import AsyncBaseClient
from heartvoice.client.arguments import (
    CoverArguments,
    RenderArguments,
    RenderCoverArguments,
    SongArguments,
    Unpack,
)
from heartvoice.client.caller_names import caller_names, input_names, job_names, named_async_stream
from heartvoice.client.collect import SongCollector, StemsCollector
from heartvoice.client.messages import Embedding, Event, Message, Report, Song, StemsMessage
from heartvoice.client.recordings import RecordingLike, as_recording
from heartvoice.client.registered_voices import RegisteredVoice
from heartvoice.client.requests import JobRequest, SongRequest, as_cover, as_request
from heartvoice.client.stems import Stems
from heartvoice.contracts.field_checks import VOICE_LIMITS_S


class AsyncClient(AsyncBaseClient):
    """`heartvoice.client.sync.Client` for asyncio: same arguments, results and errors.

    Cancelling the task, or closing the generator of a `stream` method, cancels the job on the server. One client
    belongs to one event loop: the one of its first call. Recordings are read and checked in a thread, except by the
    `stream` methods, which do so at once.
    """

    def stream(
        self,
        lyrics: str | SongRequest = "",
        tags: str = "",
        *,
        events: bool = False,
        timeout_s: float | None = None,
        **arguments: Unpack[SongArguments],
    ) -> AsyncGenerator[Message, None]:
        """Make a song and yield its messages as they come; see `Client.stream`. Iterate it under `aclosing`."""
        request = self._connection.sung(as_request(lyrics, tags, **arguments))
        return self._job(request, wire.encode_job(request, events=True), timeout_s, events)

    async def song(
        self,
        lyrics: str | SongRequest = "",
        tags: str = "",
        *,
        on_event: Callable[[Event], None] | None = None,
        timeout_s: float | None = None,
        **arguments: Unpack[SongArguments],
    ) -> Song:
        """Make a song and wait for all of it; see `Client.song`."""
        request = await asyncio.to_thread(as_request, lyrics, tags, **arguments)
        return (await self._whole(request, timeout_s, on_event)).song()

    async def render(
        self,
        lyrics: str | SongRequest = "",
        tags: str = "",
        *,
        file_format: str = "wav",
        timeout_s: float | None = None,
        **arguments: Unpack[RenderArguments],
    ) -> tuple[bytes, Report]:
        """Make a song on the server and return it as one encoded file; see `Client.render`."""
        request = await asyncio.to_thread(as_request, lyrics, tags, **arguments)
        return await self._render(request, file_format, timeout_s)

    def stream_cover(
        self,
        recording: RecordingLike,
        voice: RecordingLike | RegisteredVoice,
        *,
        consent: str = "",
        events: bool = False,
        timeout_s: float | None = None,
        **arguments: Unpack[CoverArguments],
    ) -> AsyncGenerator[Message, None]:
        """Replace a recording's singer and yield the messages as they come; see `Client.stream_cover`."""
        request = self._connection.sung(as_cover(recording, voice, consent=consent, **arguments))
        return self._job(request, wire.encode_job(request, events=True), timeout_s, events)

    async def cover(
        self,
        recording: RecordingLike,
        voice: RecordingLike | RegisteredVoice,
        *,
        consent: str = "",
        on_event: Callable[[Event], None] | None = None,
        timeout_s: float | None = None,
        **arguments: Unpack[CoverArguments],
    ) -> Song:
        """Replace a recording's singer and wait for all of it; see `Client.cover`."""
        request = await asyncio.to_thread(as_cover, recording, voice, consent=consent, **arguments)
        return (await self._whole(request, timeout_s, on_event)).song(request.recording)

    async def render_cover(
        self,
        recording: RecordingLike,
        voice: RecordingLike | RegisteredVoice,
        *,
        consent: str = "",
        file_format: str = "wav",
        timeout_s: float | None = None,
        **arguments: Unpack[RenderCoverArguments],
    ) -> tuple[bytes, Report]:
        """Make a cover on the server and return it as one encoded file; see `Client.render_cover`."""
        request = await asyncio.to_thread(as_cover, recording, voice, consent=consent, **arguments)
        return await self._render(request, file_format, timeout_s)

    def stream_stems(
        self,
        recording: RecordingLike,
        *,
        sources: Sequence[str] | str | None = None,
        events: bool = False,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[StemsMessage, None]:
        """Separate a recording and yield its stems as they are finished; see `Client.stream_stems`."""
        checked = as_recording(recording)
        stream = self._stream(
            wire.encode_stems(checked, sources, events=True), wire.stems_stream(sources), timeout_s, events
        )
        return named_async_stream(stream, input_names(checked))

    async def separate(
        self,
        recording: RecordingLike,
        *,
        sources: Sequence[str] | str | None = None,
        on_event: Callable[[Event], None] | None = None,
        timeout_s: float | None = None,
    ) -> Stems:
        """Separate a recording and wait for all of it; see `Client.separate`."""
        checked = await asyncio.to_thread(as_recording, recording)
        message = await asyncio.to_thread(wire.encode_stems, checked, sources, events=True)
        collector = StemsCollector()
        stream = self._stream(message, wire.stems_stream(sources), timeout_s, on_event is not None)
        async with aclosing(named_async_stream(stream, input_names(checked))) as messages:
            async for item in messages:
                collector.add(item)
                if on_event is not None and isinstance(item, Event):
                    on_event(item)
        return collector.stems(checked)

    async def embed(
        self, recording: RecordingLike, *, reference_check: str | None = None, timeout_s: float | None = None
    ) -> Embedding:
        """Embed the voice of a recording; see `Client.embed`."""
        checked = await asyncio.to_thread(as_recording, recording)
        with caller_names(input_names(checked)):
            return await self._infer(wire.encode_embed(checked, reference_check), timeout_s, wire.decode_embed)

    async def forget_voice(self, voice: RecordingLike, *, timeout_s: float | None = None) -> int:
        """Have the server forget what it keeps of a voice; see `Client.forget_voice`."""
        checked = await asyncio.to_thread(as_recording, voice, field="voice", limits_s=VOICE_LIMITS_S)
        message = wire.encode_forget(checked)
        async with aclosing(self._stream(message, wire.forget_stream(), timeout_s, events=False)) as stream:
            return sum([report.forgotten async for report in stream])

    async def _whole(
        self, request: JobRequest, timeout_s: float | None, on_event: Callable[[Event], None] | None
    ) -> SongCollector:
        request = await asyncio.to_thread(self._connection.sung, request)
        message = await asyncio.to_thread(wire.encode_job, request, events=True)
        return await _collect(self._job(request, message, timeout_s, on_event is not None), on_event)

    def _job(
        self, request: JobRequest, message: Any, timeout_s: float | None, events: bool
    ) -> AsyncGenerator[Message, None]:
        stream = self._stream(message, wire.job_stream(request), timeout_s, events)
        return named_async_stream(stream, job_names(request))

    async def _render(self, request: JobRequest, file_format: str, timeout_s: float | None) -> tuple[bytes, Report]:
        request = await asyncio.to_thread(self._connection.sung, request)
        message = await asyncio.to_thread(wire.encode_render, request, file_format)
        with caller_names(job_names(request)):
            return await self._infer(message, timeout_s, partial(wire.decode_render, request=request))


async def _collect(stream: AsyncGenerator[Message, None], on_event: Callable[[Event], None] | None) -> SongCollector:
    """Collect a whole stream; an exception of `on_event` cancels it."""
    collector = SongCollector()
    async with aclosing(stream) as messages:
        async for message in messages:
            collector.add(message)
            if on_event is not None and isinstance(message, Event):
                on_event(message)
    return collector
