"""One request to the converter, and the chunks of its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.audio.recordings import Voice, read_voice
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.contracts.encoding import encode_text
from heartvoice.contracts.field_checks import read_consent, read_settings, read_text
from heartvoice.contracts.settings import LIVE, MORE
from heartvoice.contracts.validation import check_conversion
from heartvoice.stages.svc.settings import ConvertSettings

Samples = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ConversionRequest:
    """Vocals to convert, and how."""

    vocals: Samples
    """float32 [N], mono at 44.1 kHz. If `state` is given, they begin where the last request's vocals ended."""
    voice: Voice | None
    """The reference. None names a voice by its key alone, which the converter must have cached."""
    voice_key: str
    """`Voice.sha256`."""
    consent: str
    settings: ConvertSettings = field(default_factory=ConvertSettings)
    live: bool = False
    state: Array | None = None
    """The state that the last request of a live conversion returned."""
    more: bool = False
    """Another request of this live conversion follows."""

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Array]) -> ConversionRequest:
        """Read and check a request's tensors.

        Raises:
            InvalidRequestError: names the field, the limit and the value.
        """
        check_conversion(inputs)
        settings = ConvertSettings.from_inputs(inputs)
        how = read_settings(inputs, (LIVE, MORE))
        consent, state = read_consent(inputs), inputs.get("state")
        voice = None if "voice_key" in inputs else read_voice(inputs)
        key = voice.sha256 if voice else read_text(inputs, "voice_key")
        vocals = inputs["vocals"].astype(np.float32, copy=False)
        return cls(vocals, voice, key, consent, settings, bool(how["live"]), state, bool(how["more"]))

    def to_inputs(self, *, named: bool = False) -> dict[str, Array]:
        """The request as tensors of the contract `svc`; the reverse of `from_inputs`.

        Args:
            named: send the key of the voice in place of the reference.
        """
        inputs: dict[str, Array] = {
            "vocals": self.vocals,
            "voice_consent": encode_text(self.consent),
            **self.settings.to_inputs(),
            "live": np.array([self.live]),
            "more": np.array([self.more]),
        }
        if self.state is not None:
            inputs["state"] = self.state
        if named or self.voice is None:
            inputs["voice_key"] = encode_text(self.voice_key)
        else:
            inputs["voice_audio"] = self.voice.audio44[None]
            inputs["voice_sample_rate"] = np.array([STEM_RATE_HZ])
        return inputs


def voice_to_forget(inputs: Mapping[str, Array]) -> str:
    """Return the `Voice.sha256` of the voice that a request with `forget` names, or whose reference it has.

    Raises:
        InvalidRequestError: names the field, the limit and the value.
    """
    check_conversion(inputs)
    return read_text(inputs, "voice_key") if "voice_key" in inputs else read_voice(inputs).sha256


@dataclass(frozen=True, eq=False)
class ConvertedChunk:
    """A chunk of converted vocals, float32 [M]. The last one has the report and, if more vocals follow, the state."""

    vocals: Samples
    state: Samples | None = None
    report: Mapping[str, Any] | None = None
