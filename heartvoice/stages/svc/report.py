"""The report on a conversion."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from heartvoice.stages.f0 import median_hz
from heartvoice.stages.svc.pitch import Contour
from heartvoice.stages.svc.settings import ConvertSettings
from heartvoice.stages.svc.voice_features import VoiceFeatures, voiced_share


@dataclass(frozen=True)
class ConversionReport:
    """The report on a conversion: windows, pitch shift, voiced share and prompt."""

    mode: str
    windows: int
    shift_semitones: float
    """The whole shift, of which ..."""
    auto_shift_semitones: float
    """... this is the automatic one."""
    shift_off_semitones: float
    """Applied automatic shift minus that of all vocals so far; always 0 for an exact conversion."""
    voiced_share: float
    median_hz: float
    voice_voiced_share: float
    voice_median_hz: float
    prompt_s: float
    prompt_start_s: float

    def rounded(self) -> dict[str, Any]:
        """The fields for JSON, floats to four digits."""
        return {name: round(v, 4) if isinstance(v, float) else v for name, v in asdict(self).items()}


def make_report(
    mode: str,
    windows: int,
    f0: Contour,
    auto: tuple[float, float],
    voice: VoiceFeatures,
    settings: ConvertSettings,
    share: float | None = None,
) -> dict[str, Any]:
    """Make a conversion's report.

    Args:
        mode: "exact" or "live".
        windows: that were converted.
        f0: contour of the vocals so far.
        auto: automatic shift in semitones: as applied, and as the whole contour asks for.
        voice: the voice.
        settings: of the conversion.
        share: voiced share of the vocals, if `f0` holds the voiced values alone.
    """
    return ConversionReport(
        mode=mode,
        windows=windows,
        shift_semitones=auto[0] + settings.pitch_shift,
        auto_shift_semitones=auto[0],
        shift_off_semitones=auto[0] - auto[1],
        voiced_share=voiced_share(f0) if share is None else share,
        median_hz=median_hz(f0),
        voice_voiced_share=voice.voiced_share,
        voice_median_hz=voice.median_hz,
        prompt_s=voice.prompt_s,
        prompt_start_s=voice.start_s,
    ).rounded()
