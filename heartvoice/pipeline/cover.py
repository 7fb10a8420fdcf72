"""A cover: the whole of a recording with another singer."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Generator, Iterator
from itertools import starmap, zip_longest

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.dsp import resample
from heartvoice.audio.recordings import Recording
from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import FRAME_HOP, SAMPLE_RATE_HZ, STEM_RATE_HZ
from heartvoice.contracts.messages import Message
from heartvoice.errors import EngineError
from heartvoice.pipeline.context import JobContext
from heartvoice.pipeline.cover_request import CoverRequest
from heartvoice.pipeline.streaming_separation import RecordingChunk
from heartvoice.pipeline.voice_conversion import VoiceConversionPipeline, VoiceStages
from heartvoice.pipeline.watermarking import Mark, mark_mix
from heartvoice.stages.separation.stage import plan_of
from heartvoice.watermark.keys import COVER

Audio = NDArray[np.float32]

CHUNK_S = 10
"""Seconds of a recording that are freed at once."""


def run_cover(
    request: CoverRequest,
    stages: VoiceStages,
    preset: Preset,
    context: JobContext,
    *,
    detect_vocals: bool = True,
    random_networks: Container[str] = (),
) -> Generator[Message, None, None]:
    """Make a cover. The recording is cut at once, everything else happens while the messages are taken.

    Args:
        request: the recording and the voice.
        stages: separate and convert.
        preset: sizes of the networks.
        context: of the job.
        detect_vocals: see `VoiceConversionPipeline`.
        random_networks: likewise.

    Yields:
        Chunks and events as they come, and the report at the end. The audio is as long as the recording.

    Raises:
        InvalidRequestError: nobody sings in the recording, and `no_vocals` is "error".
        RequestCancelledError: the job was cancelled.
        EngineError: a stage failed.
    """
    inverted = request.recording.cancels
    mark = None
    if context.watermark is not None:
        mark = context.watermark.mark(COVER, request.to_inputs(), limited=True)
    chunks = cut_recording(request.recording)
    # The recording itself is freed with the caller's request. Its chunks are freed one by one, as they are separated.
    conversion = VoiceConversionPipeline(
        request.voice, stages, plan_of(preset.separator), context,
        encoder=preset.speaker.engine, detect_vocals=detect_vocals, random_networks=random_networks,
        stems=request.stems, n_frames=round(sum(chunk.audio.shape[1] for chunk in chunks) / FRAME_HOP),
        inverted=inverted,
    )  # fmt: skip
    messages = _run(request.without_samples(), chunks, conversion, mark, context)
    return context.deliver(messages, recorded=True)


def cut_recording(recording: Recording) -> deque[RecordingChunk]:
    """Cut a recording into chunks at both rates, of which each can be freed by itself."""
    stereo, rate_hz = recording.stereo(), recording.sample_rate_hz
    mix = _cut(resample(stereo, rate_hz, STEM_RATE_HZ), CHUNK_S * STEM_RATE_HZ)
    audio = _cut(resample(stereo, rate_hz, SAMPLE_RATE_HZ), CHUNK_S * SAMPLE_RATE_HZ)
    return deque(starmap(RecordingChunk, zip_longest(audio, mix, fillvalue=np.empty((2, 0), np.float32))))


def _cut(audio: Audio, length: int) -> list[Audio]:
    return [audio[:, at : at + length].copy() for at in range(0, audio.shape[1], length)]


def _taken(chunks: deque[RecordingChunk]) -> Iterator[RecordingChunk]:
    while chunks:
        yield chunks.popleft()


def _run(
    request: CoverRequest,
    chunks: deque[RecordingChunk],
    conversion: VoiceConversionPipeline,
    mark: Mark | None,
    context: JobContext,
) -> Generator[Message, None, None]:
    n_samples = sum(chunk.audio.shape[1] for chunk in chunks)
    mix = conversion.run(lambda: _taken(chunks))
    yield from mark_mix(mix, mark, context, generated=lambda: not conversion.passthrough)
    if conversion.n_samples != n_samples:
        raise EngineError(f"cover: the mix has {conversion.n_samples} samples, the recording {n_samples}")
    context.report |= {
        "seed": request.voice.convert.seed,
        "settings": request.settings,
        "samples": n_samples,
        "sample_rate_hz": SAMPLE_RATE_HZ,
        "duration_s": n_samples / SAMPLE_RATE_HZ,
        "warnings": [f"recording: {each}" for each in request.warnings],
    }
    conversion.write_report()
