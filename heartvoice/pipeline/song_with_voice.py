"""A song with a voice of the caller's choice, or with its stems: the song's pieces go on while it is being written."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import MIX_STEM_NAMES
from heartvoice.pipeline.messages import AudioPiece, Finished, Message, drain, split_into_chunks
from heartvoice.pipeline.prefetch import Prefetcher, Timeout
from heartvoice.pipeline.song import SongPipeline, SongRequest, SongStages
from heartvoice.pipeline.streaming_separation import (
    Audio,
    RecordingChunk,
    StemSplitter,
    StreamingSeparator,
    resample_stream,
)
from heartvoice.pipeline.voice_conversion import MAX_AHEAD_WINDOWS, POLL_S, VoiceConversionPipeline, VoiceStages
from heartvoice.stages.separation import SeparationPlan


def run_song(
    request: SongRequest,
    stages: SongStages,
    voice_stages: Callable[[], VoiceStages],
    preset: Preset,
    about: Mapping[str, Any],
    *,
    detect_vocals: bool,
    check: Callable[[], None] = lambda: None,
) -> Generator[Message, None, None]:
    """Make a song, whichever it is.

    Args:
        request: the song; with a voice it is sung in that voice, with `stems` it comes with them.
        stages: what writes and decodes it.
        voice_stages: what separates and converts; made only if it is needed.
        preset: sizes of the networks.
        about: what the report says of the networks.
        detect_vocals: see `VoiceConversionPipeline`.
        check: called between pieces and while waiting; what it raises ends the job.
    """
    song = SongPipeline(request, stages, preset, about)
    if request.voice is None and not request.stems:
        yield from song.run(check)
        return
    plan = SeparationPlan(preset.separator)
    under_way = _SongSource(song, check)
    if request.voice is None:
        yield from _with_stems(under_way, voice_stages(), plan, check)
        return
    revoicer = VoiceConversionPipeline(
        request.voice, voice_stages(), plan,
        encoder=preset.speaker.engine, detect_vocals=detect_vocals, stems=request.stems, n_frames=request.n_frames,
    )  # fmt: skip
    yield from revoicer.run(under_way.recorded, check, under_way.side_messages)
    yield under_way.finished(revoicer.report(), revoicer.first_audio_s)


class _SongSource:
    """A song that is taken up by another stage: its audio goes there, all other messages past it."""

    def __init__(self, song: SongPipeline, check: Callable[[], None]) -> None:
        self._song, self._check = song, check
        self._began = time.monotonic()
        self._report: dict[str, Any] = {}
        self.side_messages: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def recorded(self) -> Iterator[RecordingChunk]:
        """The song at both rates; it is written at full speed, however slow the next stage is."""
        with Prefetcher(self._audio, name="song-audio") as audio:
            yield from resample_stream(audio.items(self._check))

    def _audio(self) -> Iterator[Audio]:
        for message in self._song.run(self._check):
            if isinstance(message, AudioPiece):
                yield message.audio
            elif isinstance(message, Finished):
                self._report = message.report
            else:
                self.side_messages.put(message)

    def finished(self, further: Mapping[str, Any], first_audio_s: float | None) -> Finished:
        """The song's report and what the next stage adds to it."""
        timings = {
            **self._report["timings"],
            **further.get("timings", {}),
            "first_audio_s": first_audio_s,
            "total_s": round(time.monotonic() - self._began, 4),
        }
        return Finished({**self._report, **further, "timings": timings})


def _with_stems(
    under_way: _SongSource, stages: VoiceStages, plan: SeparationPlan, check: Callable[[], None]
) -> Generator[Message, None, None]:
    """A song as the LM wrote it, with its stems; the audio is the same as without them."""
    began = time.monotonic()
    first_audio_s: float | None = None
    separating, splitter = StreamingSeparator(stages.separate, plan), StemSplitter()
    with Prefetcher(
        lambda: separating.run(under_way.recorded()), name="song-separate", max_ahead=MAX_AHEAD_WINDOWS
    ) as separated:
        for item in separated.poll(check, tick_s=POLL_S):
            yield from drain(under_way.side_messages)
            piece = None if isinstance(item, Timeout) else splitter.push(item)
            if piece is not None:
                if first_audio_s is None:
                    first_audio_s = round(time.monotonic() - began, 4)
                yield from split_into_chunks(piece, stems=True)
    yield from drain(under_way.side_messages)
    yield under_way.finished({"stems": list(MIX_STEM_NAMES)}, first_audio_s)
