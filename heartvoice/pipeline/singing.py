"""Measures of singing: where there is some, and how the converted singing compares with the source and the voice."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.dsp import resample
from heartvoice.contracts.constants import SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.stages.f0 import median_hz, shift_semitones

Audio = NDArray[np.float32]

EXCERPT_S = 30.0
"""Seconds of singing that similarity and F0 are measured on."""
BLOCKS_PER_S = 10
_BLOCK = STEM_RATE_HZ // BLOCKS_PER_S
_AUDIBLE_DBFS = -50.0
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
    """The first `EXCERPT_S` of audible singing in a stream of vocals."""

    def __init__(self) -> None:
        self._parts: list[Audio] = []
        self._n_kept = 0
        self.n_samples = 0
        """Samples of the stream so far."""

    def add(self, audio: Audio) -> None:
        """Keep the audible seconds of float32 [N] at 44.1 kHz."""
        self.n_samples += len(audio)
        for start in range(0, len(audio), STEM_RATE_HZ):
            part = audio[start : start + STEM_RATE_HZ]
            if self._n_kept < EXCERPT_S * STEM_RATE_HZ and _level_dbfs(part[None])[0] > _AUDIBLE_DBFS:
                self._parts.append(part)
                self._n_kept += len(part)

    def audio(self) -> Audio:
        """The kept samples, float32 [M]."""
        return np.concatenate(self._parts) if self._parts else np.empty(0, np.float32)


def count_singing_blocks(vocals: Audio, mix: Audio) -> int:
    """Count the blocks of 0.1 s in which the vocals are audible, alone and in the mix.

    Args:
        vocals: float32 [2, N] at 44.1 kHz.
        mix: float32 [2, N], the recording that they were separated from.
    """
    n = vocals.shape[1] // _BLOCK
    vocals_dbfs, mix_dbfs = (
        _level_dbfs(audio[:, : n * _BLOCK].reshape(2, n, _BLOCK).transpose(1, 0, 2).reshape(n, -1))
        for audio in (vocals, mix)
    )
    return int(np.sum((vocals_dbfs > _AUDIBLE_DBFS) & (vocals_dbfs > mix_dbfs + _BELOW_MIX_DB)))


def _level_dbfs(blocks: Audio) -> Audio:
    """Level of each block of float32 [B, N]."""
    power = np.mean(np.square(blocks), axis=-1, dtype=np.float64)
    level: Audio = (10 * np.log10(power + 1e-20)).astype(np.float32)
    return level


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
        The report's fields `similarity` (cosines to the reference) and `f0` (medians in Hz, and the shift in
        semitones). A value is None if there is too little singing to measure it.
    """
    similarity: dict[str, Any] = {"encoder": encoder, "before": None, "after": None}
    sung = {name: audio for name, audio in (("before", source), ("after", result)) if len(audio) >= STEM_RATE_HZ}
    if sung:
        reference = stages.embed(voice)
        similarity |= {name: round(float(reference @ stages.embed(audio)), 4) for name, audio in sung.items()}
    contours = [
        stages.track_f0(resample(audio, STEM_RATE_HZ, SPEECH_RATE_HZ)) if len(audio) else np.zeros(1, np.float32)
        for audio in (source, result, voice)
    ]
    medians = [median_hz(contour) for contour in contours]
    names = ("source_median_hz", "result_median_hz", "voice_median_hz")
    f0: dict[str, Any] = {name: round(m, 2) if m else None for name, m in zip(names, medians, strict=True)}
    shift = shift_semitones(contours[0], contours[1])
    return {
        "similarity": similarity,
        "f0": f0 | {"shift_semitones": None if shift is None else round(shift, 3)},
    }
