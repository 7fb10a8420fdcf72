"""The report on a conversion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from heartvoice.contracts.constants import AUTO_PITCH_DOES
from heartvoice.stages.f0 import median_hz
from heartvoice.stages.svc.pitch import Contour, keeps_key, range_warnings
from heartvoice.stages.svc.settings import ConvertSettings
from heartvoice.stages.svc.voice_features import VoiceFeatures, voiced_share


@dataclass(frozen=True)
class ConversionReport:
    """The report on a conversion: windows, pitch shift, voiced share, prompt and warnings."""

    mode: str
    windows: int
    auto_pitch: str
    shift_semitones: float
    """The whole shift as applied, of which ..."""
    auto_shift_semitones: float
    """... this is the automatic one."""
    keeps_key: bool
    """The shift is of whole octaves, so the singing stays in the key of its accompaniment."""
    shift_off_semitones: float
    """Applied automatic shift minus that of all vocals so far; always 0 for an exact conversion."""
    voiced_share: float
    median_hz: float
    voice_voiced_share: float
    voice_median_hz: float
    prompt_s: float
    prompt_start_s: float
    prompt_gain_db: float
    """What brought the prompt to its level."""
    warnings: list[str]

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
    shift = auto[0] + settings.pitch_shift
    return ConversionReport(
        mode=mode,
        windows=windows,
        auto_pitch=settings.auto_pitch,
        shift_semitones=shift,
        auto_shift_semitones=auto[0],
        keeps_key=keeps_key(shift),
        shift_off_semitones=auto[0] - auto[1],
        voiced_share=voiced_share(f0) if share is None else share,
        median_hz=median_hz(f0),
        voice_voiced_share=voice.voiced_share,
        voice_median_hz=voice.median_hz,
        prompt_s=voice.prompt_s,
        prompt_start_s=voice.start_s,
        prompt_gain_db=voice.gain_db,
        warnings=range_warnings(f0, shift),
    ).rounded()


class ConversionReports:
    """The converter's reports on one song: several if it was converted live."""

    def __init__(self) -> None:
        self.last: dict[str, Any] = {}
        """The last one, which is about all vocals."""
        self._shifts: list[float] = []

    def add(self, report: Mapping[str, Any] | None) -> None:
        """Take the report of a chunk, if it has one."""
        self.last |= report or {}
        shift = self.last.get("shift_semitones")
        if report and self.last.get("windows") and shift is not None and [shift] != self._shifts[-1:]:
            self._shifts.append(shift)

    @property
    def warnings(self) -> list[str]:
        """Warnings for the report of the job."""
        return list(self.last.get("warnings", ()))

    def pitch(self) -> dict[str, Any]:
        """What was done to the pitch, for the report of the job; empty if the converter did not say."""
        names = ("auto_pitch", "shift_semitones", "auto_shift_semitones", "keeps_key")
        done = {name: self.last[name] for name in names if name in self.last}
        if "auto_pitch" in done:
            done["does"] = AUTO_PITCH_DOES[done["auto_pitch"]]
        if len(self._shifts) > 1:
            done |= {"shifts_semitones": self._shifts, "keeps_key": all(map(keeps_key, self._shifts))}
        return done
