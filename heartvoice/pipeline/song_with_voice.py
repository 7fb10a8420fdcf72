"""A song of any kind: as the language model wrote it, with its stems, or in a voice of the caller's choice."""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterator

from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import MIX_STEM_NAMES
from heartvoice.contracts.messages import Audio, AudioChunk, Message
from heartvoice.pipeline.chunks import split_into_chunks
from heartvoice.pipeline.context import JobContext
from heartvoice.pipeline.prefetch import Timeout
from heartvoice.pipeline.song import SongPipeline, SongStages
from heartvoice.pipeline.song_request import SongRequest
from heartvoice.pipeline.streaming_separation import (
    RecordingChunk,
    StemSplitter,
    StreamingSeparator,
    resample_stream,
)
from heartvoice.pipeline.voice_conversion import MAX_AHEAD_WINDOWS, POLL_S, VoiceConversionPipeline, VoiceStages
from heartvoice.pipeline.watermarking import Mark, mark_mix
from heartvoice.stages.separation.plan import Plan
from heartvoice.stages.separation.stage import plan_of
from heartvoice.watermark.keys import SONG


def run_song(
    request: SongRequest,
    stages: SongStages,
    voice_stages: Callable[[], VoiceStages],
    preset: Preset,
    context: JobContext,
    *,
    detect_vocals: bool,
    random_networks: Container[str] = (),
) -> Generator[Message, None, None]:
    """Make a song.

    Args:
        request: the song. With a voice it is sung in that voice; with `stems` its stems are yielded, too.
        stages: write and decode it.
        voice_stages: makes the stages that separate and convert; called only if they are needed.
        preset: sizes of the networks.
        context: of the job.
        detect_vocals: see `VoiceConversionPipeline`.
        random_networks: likewise.

    Yields:
        Chunks and events as they come, and the report at the end.

    Raises:
        InvalidRequestError: nobody sings in it, and `no_vocals` is "error".
        RequestCancelledError: the job was cancelled.
        EngineError: a stage failed.
    """
    song = SongPipeline(request, stages, preset, context)
    mark = None
    if context.watermark is not None:
        mark = context.watermark.mark(SONG, request.to_inputs(), limited=request.voice is not None)
    if request.voice is None and not request.stems:
        yield from context.deliver(mark_mix(song.run(), mark, context))
        return
    plan = plan_of(preset.separator)
    if request.voice is None:
        yield from context.deliver(mark_mix(_run_with_stems(song, voice_stages(), plan, context), mark, context))
        return
    conversion = VoiceConversionPipeline(
        request.voice, voice_stages(), plan, context,
        encoder=preset.speaker.engine, detect_vocals=detect_vocals, random_networks=random_networks,
        stems=request.stems, n_frames=request.n_frames,
    )  # fmt: skip
    yield from context.deliver(_run_with_voice(song, conversion, mark, context))


def _run_with_voice(
    song: SongPipeline, conversion: VoiceConversionPipeline, mark: Mark | None, context: JobContext
) -> Generator[Message, None, None]:
    yield from mark_mix(conversion.run(lambda: _as_recording(song, context)), mark, context)
    conversion.write_report()


def _run_with_stems(
    song: SongPipeline, stages: VoiceStages, plan: Plan, context: JobContext
) -> Generator[Message, None, None]:
    """A song with its stems; its audio is the same as without them."""
    separator, splitter = StreamingSeparator(stages.separate, plan), StemSplitter()
    with context.prefetch(
        lambda: separator.run(_as_recording(song, context)), name="song-separate", max_ahead=MAX_AHEAD_WINDOWS
    ) as separated:
        for window in separated.poll(tick_s=POLL_S):
            yield from context.posted()
            piece = None if isinstance(window, Timeout) else splitter.push(window)
            if piece is not None:
                yield from split_into_chunks(piece, stems=True)
    yield from context.posted()
    context.report["stems"] = list(MIX_STEM_NAMES)


def _as_recording(song: SongPipeline, context: JobContext) -> Iterator[RecordingChunk]:
    """The song's audio at both rates. All its other messages are posted to the context.

    The song is written at full speed, however slow the consumer is.
    """

    def audio() -> Iterator[Audio]:
        for message in song.run():
            if isinstance(message, AudioChunk):
                yield message.audio
            else:
                context.post(message)

    with context.prefetch(audio, name="song-audio") as prefetched:
        yield from resample_stream(prefetched.items())
