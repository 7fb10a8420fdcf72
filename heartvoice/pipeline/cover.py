"""A cover: the whole of a recording with another singer."""

from __future__ import annotations

from collections.abc import Generator

from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import FRAME_HOP, SAMPLE_RATE_HZ
from heartvoice.contracts.messages import Message
from heartvoice.errors import EngineError
from heartvoice.pipeline.context import JobContext
from heartvoice.pipeline.cover_request import CoverRequest
from heartvoice.pipeline.streaming_separation import RecordingChunk
from heartvoice.pipeline.voice_conversion import VoiceConversionPipeline, VoiceStages
from heartvoice.stages.separation.plan import SeparationPlan


def run_cover(
    request: CoverRequest, stages: VoiceStages, preset: Preset, context: JobContext, *, detect_vocals: bool = True
) -> Generator[Message, None, None]:
    """Make a cover.

    Args:
        request: the recording and the voice.
        stages: separate and convert.
        preset: sizes of the networks.
        context: of the job.
        detect_vocals: see `VoiceConversionPipeline`.

    Yields:
        Chunks and events as they come, and the report at the end. The audio is as long as the recording.

    Raises:
        InvalidRequestError: nobody sings in the recording, and `no_vocals` is "error".
        RequestCancelledError: the job was cancelled.
        EngineError: a stage failed.
    """
    yield from context.deliver(_run(request, stages, preset, context, detect_vocals), recorded=True)


def _run(
    request: CoverRequest, stages: VoiceStages, preset: Preset, context: JobContext, detect_vocals: bool
) -> Generator[Message, None, None]:
    audio, mix = request.audio48, request.audio44
    n_samples = audio.shape[1]
    conversion = VoiceConversionPipeline(
        request.voice, stages, SeparationPlan(preset.separator), context,
        encoder=preset.speaker.engine, detect_vocals=detect_vocals, stems=request.stems,
        n_frames=round(n_samples / FRAME_HOP),
    )  # fmt: skip
    yield from conversion.run(lambda: [RecordingChunk(audio, mix)])
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
