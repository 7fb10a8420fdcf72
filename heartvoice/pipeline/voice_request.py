"""A checked voice, and how it shall sing: the part of a request that songs and covers share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.audio.recordings import Voice, read_voice
from heartvoice.contracts.constants import DEFAULT_REFERENCE_CHECK, NO_VOCALS_MODES, REFERENCE_CHECK_MODES
from heartvoice.contracts.encoding import encode_settings, encode_text
from heartvoice.contracts.field_checks import read_consent, read_settings, read_word
from heartvoice.contracts.settings import VOICE_SETTINGS
from heartvoice.contracts.validation import check_voice
from heartvoice.stages.svc.request import ConversionRequest
from heartvoice.stages.svc.settings import ConvertSettings

Audio = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class VoiceRequest:
    """A checked voice, and how it shall sing."""

    voice: Voice
    consent: str
    no_vocals: str
    reference_check: str
    reference_separate: bool
    live: bool
    vocal_gain_db: float
    convert: ConvertSettings
    settings: dict[str, float | int | bool | str]
    """All of these settings by name, for the report."""

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Array]) -> VoiceRequest:
        """Read and check a request's tensors, the cheap ones first.

        Raises:
            InvalidRequestError: names the field, the limit and the value.
        """
        check_voice(inputs)
        values = read_settings(inputs, VOICE_SETTINGS)
        convert = ConvertSettings.from_inputs(inputs)
        no_vocals = read_word(inputs, "no_vocals", NO_VOCALS_MODES) or "passthrough"
        reference_check = read_word(inputs, "reference_check", REFERENCE_CHECK_MODES) or DEFAULT_REFERENCE_CHECK
        words = {"auto_pitch": convert.auto_pitch, "no_vocals": no_vocals, "reference_check": reference_check}
        return cls(
            voice=read_voice(inputs),
            consent=read_consent(inputs),
            no_vocals=no_vocals,
            reference_check=reference_check,
            reference_separate=bool(values["reference_separate"]),
            live=bool(values["live"]),
            vocal_gain_db=float(values["vocal_gain_db"]),
            convert=convert,
            settings={**values, **words},
        )

    def to_inputs(self) -> dict[str, Array]:
        """The request as tensors of the contract; the reverse of `from_inputs`. The voice is sent as samples."""
        return {
            **self.convert.to_inputs(),
            **encode_settings(self.settings, VOICE_SETTINGS),
            "no_vocals": encode_text(self.no_vocals),
            "reference_check": encode_text(self.reference_check),
            "voice_audio": self.voice.audio.audio,
            "voice_sample_rate": np.array([self.voice.audio.sample_rate_hz]),
            "voice_consent": encode_text(self.consent),
        }

    def conversion(
        self, vocals: Audio, state: Array | None, more: bool, *, voice: Voice | None = None
    ) -> ConversionRequest:
        """A request to the converter; `voice` replaces the reference, see `ConversionRequest` for the others."""
        voice = voice or self.voice
        return ConversionRequest(vocals, voice, voice.sha256, self.consent, self.convert, self.live, state, more)
