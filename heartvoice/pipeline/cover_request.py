"""A checked cover: what `cover` and `render` are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.audio.dsp import resample
from heartvoice.audio.recordings import Recording, read_recording
from heartvoice.contracts.constants import SAMPLE_RATE_HZ, STEM_RATE_HZ
from heartvoice.contracts.encoding import encode_settings
from heartvoice.contracts.field_checks import read_settings
from heartvoice.contracts.models import COVER
from heartvoice.contracts.validation import check_cover
from heartvoice.pipeline.voice_request import VoiceRequest

Audio = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CoverRequest:
    """A checked cover: a recording, and the voice that shall sing it."""

    recording: Recording
    voice: VoiceRequest
    stems: bool
    settings: dict[str, float | int | bool | str]
    """All settings by name, for the report."""

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Array]) -> CoverRequest:
        """Read and check a request's tensors, the cheap ones first.

        Raises:
            InvalidRequestError: names the field, the limit and the value.
        """
        check_cover(inputs)
        settings = read_settings(inputs, COVER.settings)
        voice = VoiceRequest.from_inputs(inputs)
        recording = read_recording(inputs)
        return cls(recording, voice, bool(settings["stems"]), {**settings, **voice.settings})

    def to_inputs(self) -> dict[str, Array]:
        """The request as tensors of the contract; the reverse of `from_inputs`. The recording is sent as samples."""
        return {
            **encode_settings(self.settings, COVER.settings),
            **self.voice.to_inputs(),
            "audio": self.recording.audio,
            "sample_rate": np.array([self.recording.sample_rate_hz]),
        }

    @cached_property
    def audio48(self) -> Audio:
        """The recording at 48 kHz, float32 [2, N]. The cover has the same length."""
        return resample(self.recording.stereo(), self.recording.sample_rate_hz, SAMPLE_RATE_HZ)

    @cached_property
    def audio44(self) -> Audio:
        """The recording at 44.1 kHz, float32 [2, M], for separation."""
        return resample(self.recording.stereo(), self.recording.sample_rate_hz, STEM_RATE_HZ)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Possible faults of the recording."""
        return self.recording.warnings
