"""Measures of singing: where there is some, and how the converted singing compares with the source and the voice."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.dsp import resample
from heartvoice.audio.levels import HEARD_DB, SILENCE_DBFS, Levels, block_levels, voice_level
from heartvoice.contracts.constants import SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.stages.f0 import heard_contour, median_hz, shift_semitones

Audio = NDArray[np.float32]

EXCERPT_S = 30.0
"""Seconds of singing that similarity and F0 are measured on."""
MEASURED_ON = {
    "source": f"the separated vocals, their first {EXCERPT_S:g} s of singing",
    "result": f"the converted vocals before the mix, their first {EXCERPT_S:g} s of singing",
    "voice": "the whole reference",
}
"""Signals behind the medians of the report's `f0`."""
BLOCKS_PER_S = 10
_BLOCK = STEM_RATE_HZ // BLOCKS_PER_S
_AUDIBLE_DB = -35.0
"""Vocals that are softer than this, relative to the loud parts of the mix so far, are inaudible."""
_BELOW_MIX_DB = -20.0
"""Vocals that are softer than this, relative to the mix, are leakage of the band."""


class SingingStages(Protocol):
    """The stages that the comparison needs; see `VoiceStages`."""

    def embed(self, audio: Audio) -> Audio:
        """Unit vector float32 [D] of the singer of float32 [N] at 44.1 kHz."""
        ...

    def track_f0(self, audio: Audio) -> Audio:
        """F0 of float32 [N] at 16 kHz: Hz, 100 values a second, 0 = unvoiced."""
        ...


class SingingExcerpt:
    """The first `EXCERPT_S` of singing in a stream of vocals: seconds within `HEARD_DB` of the loudest one so far."""

    def __init__(self) -> None:
        self._parts: list[tuple[float, Audio]] = []
        self._loudest_dbfs = SILENCE_DBFS
        self.n_samples = 0
        """Samples of the stream so far."""

    def add(self, audio: Audio) -> None:
        """Keep the audible seconds of float32 [N] at 44.1 kHz."""
        self.n_samples += len(audio)
        for start in range(0, len(audio), STEM_RATE_HZ):
            part = audio[start : start + STEM_RATE_HZ]
            level = float(block_levels(part, len(part))[0])
            if level > self._loudest_dbfs:
                self._loudest_dbfs = level
                self._parts = [kept for kept in self._parts if kept[0] > level - HEARD_DB]
            n_kept = sum(len(kept) for _, kept in self._parts)
            if n_kept < EXCERPT_S * STEM_RATE_HZ and level > max(self._loudest_dbfs - HEARD_DB, SILENCE_DBFS):
                self._parts.append((level, part.copy()))  # a view would keep all of `audio`

    def audio(self) -> Audio:
        """The kept samples, float32 [M]."""
        return np.concatenate([part for _, part in self._parts]) if self._parts else np.empty(0, np.float32)


class SingingDetector:
    """Counts the blocks of 0.1 s in which somebody sings, window by window."""

    def __init__(self) -> None:
        self.n_blocks = 0
        """Blocks with audible vocals so far."""
        self._mix_dbfs = SILENCE_DBFS

    def add(self, vocals: Audio, mix: Audio) -> None:
        """Count the blocks in which the vocals are audible: beside the loud parts of the mix, and in the mix there.

        Args:
            vocals: float32 [2, N] at 44.1 kHz.
            mix: float32 [2, N], the recording that they were separated from.
        """
        vocals_dbfs, mix_dbfs = (_stereo_levels(audio) for audio in (vocals, mix))
        self._mix_dbfs = max(self._mix_dbfs, voice_level(mix_dbfs, BLOCKS_PER_S))
        audible = vocals_dbfs > max(self._mix_dbfs + _AUDIBLE_DB, SILENCE_DBFS)
        self.n_blocks += int(np.sum(audible & (vocals_dbfs > mix_dbfs + _BELOW_MIX_DB)))


def _stereo_levels(audio: Audio) -> Levels:
    """Level of each block of float32 [2, N], over both channels."""
    power = np.mean(10 ** (block_levels(audio, _BLOCK) / 10), axis=0)
    levels: Levels = 10 * np.log10(power)
    return levels


def compare_singing(
    stages: SingingStages, voice: Audio, source: Audio, result: Audio, *, encoder: str
) -> dict[str, Any]:
    """Compare the singing before and after the conversion with the reference.

    Args:
        stages: embed and track F0.
        voice: float32 [N] at 44.1 kHz, the reference.
        source: float32 [N], an excerpt of the vocals before conversion.
        result: float32 [N], an excerpt of them after it.
        encoder: name of the speaker encoder.

    Returns:
        The report's fields `similarity` (cosines to the reference) and `f0` (medians in Hz, the semitones from source
        to result, and the signals that they were measured on). A value is None if there is too little singing to
        measure it. What the converter did is in the report's `pitch`.
    """
    similarity: dict[str, Any] = {"encoder": encoder, "before": None, "after": None}
    sung = {name: audio for name, audio in (("before", source), ("after", result)) if len(audio) >= STEM_RATE_HZ}
    if sung:
        reference = stages.embed(voice)
        similarity |= {name: round(float(reference @ stages.embed(audio)), 4) for name, audio in sung.items()}
    contours = [_heard_pitch(stages, audio) for audio in (source, result, voice)]
    medians = [median_hz(contour) for contour in contours]
    names = ("source_median_hz", "result_median_hz", "voice_median_hz")
    f0: dict[str, Any] = {name: round(m, 2) if m else None for name, m in zip(names, medians, strict=True)}
    change = shift_semitones(contours[0], contours[1])
    f0 |= {"change_semitones": None if change is None else round(change, 3), "measured_on": MEASURED_ON}
    return {"similarity": similarity, "f0": f0}


def _heard_pitch(stages: SingingStages, audio: Audio) -> Audio:
    """Contour of [N] at 44.1 kHz for statistics."""
    if not len(audio):
        return np.zeros(1, np.float32)
    audio16 = resample(audio, STEM_RATE_HZ, SPEECH_RATE_HZ)
    return heard_contour(stages.track_f0(audio16), audio16)
