"""A recording with another singer: a checked request, and `VoiceConversionPipeline` over the whole recording."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice import __version__
from heartvoice.arrays import Array
from heartvoice.audio.dsp import resample
from heartvoice.audio.recordings import read_recording
from heartvoice.contracts.constants import FRAME_HOP, MAX_RECORDING_S, MIN_RECORDING_S, SAMPLE_RATE_HZ, STEM_RATE_HZ
from heartvoice.contracts.models import COVER
from heartvoice.contracts.validation import read_settings
from heartvoice.errors import EngineError
from heartvoice.pipeline.messages import Finished, Message
from heartvoice.pipeline.streaming_separation import RecordingChunk
from heartvoice.pipeline.voice_conversion import VoiceConversionPipeline, VoiceRequest, VoiceStages
from heartvoice.stages.separation import SeparationPlan

Audio = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CoverRequest:
    """A checked cover."""

    recording: Audio
    """float32 [2, N] at 48 kHz: what comes back has this length."""
    mix: Audio
    """The same at 44.1 kHz, for separation."""
    voice: VoiceRequest
    stems: bool
    warnings: tuple[str, ...]
    settings: dict[str, float | int | bool | str]

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Array]) -> CoverRequest:
        """Check a request's tensors, cheap ones first.

        Raises:
            InvalidRequestError: names the field, the limit and the value.
        """
        settings = read_settings(inputs, COVER.settings)
        voice = VoiceRequest.from_inputs(inputs)
        recording = read_recording(inputs, min_s=MIN_RECORDING_S, max_s=MAX_RECORDING_S)
        stereo = recording.stereo()
        return cls(
            recording=resample(stereo, recording.sample_rate_hz, SAMPLE_RATE_HZ),
            mix=resample(stereo, recording.sample_rate_hz, STEM_RATE_HZ),
            voice=voice,
            stems=bool(settings["stems"]),
            warnings=recording.warnings,
            settings={**settings, **voice.settings},
        )


class CoverPipeline:
    """One cover under way."""

    def __init__(
        self,
        request: CoverRequest,
        stages: VoiceStages,
        plan: SeparationPlan,
        about: Mapping[str, Any] | None = None,
        *,
        encoder: str = "",
        detect_vocals: bool = True,
    ) -> None:
        """`about` is what the report says of the networks; for the others see `VoiceConversionPipeline`."""
        self._request, self._about = request, dict(about or {})
        self._began = time.monotonic()
        self._revoicer = VoiceConversionPipeline(
            request.voice, stages, plan,
            encoder=encoder, detect_vocals=detect_vocals, stems=request.stems,
            n_frames=round(request.recording.shape[1] / FRAME_HOP),
        )  # fmt: skip

    def run(self, check: Callable[[], None] = lambda: None) -> Generator[Message, None, None]:
        """Yield pieces as they are finished and the report at the end; see `VoiceConversionPipeline.run`."""
        request = self._request
        n_samples = request.recording.shape[1]
        yield from self._revoicer.run(lambda: [RecordingChunk(request.recording, request.mix)], check)
        if self._revoicer.n_samples != n_samples:
            raise EngineError(f"cover: the mix has {self._revoicer.n_samples} samples, the recording {n_samples}")
        yield Finished(self._report(n_samples))

    def _report(self, n_samples: int) -> dict[str, Any]:
        request, of_voice = self._request, self._revoicer.report()
        timings = {
            **of_voice.pop("timings"),
            "first_audio_s": self._revoicer.first_audio_s,
            "total_s": round(time.monotonic() - self._began, 4),
        }
        return {
            "heartvoice": __version__,
            **self._about,
            "seed": request.voice.convert.seed,
            "settings": request.settings,
            "samples": n_samples,
            "sample_rate_hz": SAMPLE_RATE_HZ,
            "duration_s": n_samples / SAMPLE_RATE_HZ,
            **of_voice,
            "warnings": [*request.warnings, *of_voice["warnings"]],
            "timings": timings,
        }
