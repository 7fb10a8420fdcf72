"""A checked cover: what `cover` and `render` are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from heartvoice.arrays import Array
from heartvoice.audio.recordings import Recording, read_recording
from heartvoice.contracts.encoding import encode_settings
from heartvoice.contracts.field_checks import read_settings
from heartvoice.contracts.models import COVER
from heartvoice.contracts.validation import check_cover
from heartvoice.pipeline.voice_request import VoiceRequest


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

    def without_samples(self) -> CoverRequest:
        """The request without its recording's samples."""
        return replace(self, recording=replace(self.recording, audio=self.recording.audio[:, :0].copy()))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Possible faults of the recording."""
        return self.recording.warnings
