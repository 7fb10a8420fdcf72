"""The settings of a conversion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from heartvoice.arrays import Array
from heartvoice.contracts.constants import AUTO_PITCH_MODES, DEFAULT_AUTO_PITCH
from heartvoice.contracts.encoding import encode_settings, encode_text
from heartvoice.contracts.field_checks import read_settings, read_word
from heartvoice.contracts.settings import PITCH_SHIFT, PROMPT_S, SEED, SVC_GUIDANCE, SVC_SETTINGS, SVC_STEPS
from heartvoice.errors import InvalidRequestError
from heartvoice.stages.svc.pitch import Contour, automatic_shift

AutoPitch = Literal["off", "exact", "semitone", "octave"]


@dataclass(frozen=True)
class ConvertSettings:
    """Checked settings of one conversion; defaults and ranges are those of `SVC_SETTINGS`.

    Raises:
        InvalidRequestError: names the field, the limit and the value.
    """

    steps: int = int(SVC_STEPS.default)
    guidance: float = float(SVC_GUIDANCE.default)
    seed: int = 0
    pitch_shift: float = 0.0
    """Semitones."""
    auto_pitch: AutoPitch = DEFAULT_AUTO_PITCH  # type: ignore[assignment]
    """Shift of the median pitch to the voice's: none, or rounded to this (see `constants.AUTO_PITCH_DOES`)."""
    prompt_s: float = float(PROMPT_S.default)

    def __post_init__(self) -> None:
        pairs = ((SVC_STEPS, self.steps), (SVC_GUIDANCE, self.guidance), (SEED, self.seed))
        for setting, value in (*pairs, (PITCH_SHIFT, self.pitch_shift), (PROMPT_S, self.prompt_s)):
            setting.check(value)
        if self.auto_pitch not in AUTO_PITCH_MODES:
            raise InvalidRequestError(
                f"auto_pitch: expected one of {', '.join(AUTO_PITCH_MODES)}, got {self.auto_pitch!r}"
            )

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Array]) -> ConvertSettings:
        """Read and check a request's settings, all of them optional; `auto_pitch` is BYTES [1]."""
        values = read_settings(inputs, (*SVC_SETTINGS, SEED))
        return cls(
            steps=int(values["svc_steps"]),
            guidance=float(values["svc_guidance"]),
            seed=int(values["seed"]),
            pitch_shift=float(values["pitch_shift"]),
            auto_pitch=read_word(inputs, "auto_pitch", AUTO_PITCH_MODES) or DEFAULT_AUTO_PITCH,  # type: ignore[arg-type]
            prompt_s=float(values["prompt_s"]),
        )

    def to_inputs(self) -> dict[str, Array]:
        """The settings as tensors; the reverse of `from_inputs`."""
        values = {
            "svc_steps": self.steps,
            "svc_guidance": self.guidance,
            "seed": self.seed,
            "pitch_shift": self.pitch_shift,
            "prompt_s": self.prompt_s,
        }
        return {**encode_settings(values, (*SVC_SETTINGS, SEED)), "auto_pitch": encode_text(self.auto_pitch)}

    def automatic_shift(self, source: Contour, reference: Contour, *, held: float | None = None) -> float:
        """Semitones of the automatic shift; see `pitch.automatic_shift`."""
        return 0.0 if self.auto_pitch == "off" else automatic_shift(source, reference, self.auto_pitch, held=held)
