"""Synthetic voices of known pitch, and scores of F0 contours against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice import keyed_random
from heartvoice.contracts.constants import F0_RATE_HZ, SPEECH_RATE_HZ
from heartvoice.stages.f0 import STEP_CENTS

Samples = NDArray[np.float32]
Curve = NDArray[np.float64]

N_HARMONICS = 20
CLOSE_CENTS, GROSS_CENTS = 50.0, 600.0
NOISES_DB = (None, 20.0, 5.0)
"""Signal-to-noise ratios of the table; None is clean."""
_FADE_S = 0.01


@dataclass(frozen=True)
class Voice:
    """Samples float32 [N] at 16 kHz in [-1, 1], and the pitch of each in Hz, 0 = silent."""

    audio: Samples
    pitch: Curve

    @property
    def contour(self) -> Curve:
        """Pitch on the contour's grid, [N // 160 + 1]."""
        hop = SPEECH_RATE_HZ // F0_RATE_HZ
        values: Curve = self.pitch[np.minimum(np.arange(len(self.pitch) // hop + 1) * hop, len(self.pitch) - 1)]
        return values

    def in_noise(self, snr_db: float, seed: int = 0) -> Voice:
        """Return the voice in white noise, `snr_db` below its voiced part."""
        power = float(np.square(self.audio[self.pitch > 0], dtype=np.float64).mean())
        hiss = keyed_random.normal(seed, "benchmark hiss", 0, self.audio.shape) * np.float32(
            np.sqrt(power) * 10 ** (-snr_db / 20)
        )
        return Voice(self.audio + hiss, self.pitch)


def sung(pitch: Curve, peak: float = 0.5) -> Voice:
    """Synthesise harmonics of amplitude 1 / k below 7.6 kHz, with short fades of notes."""
    angle = 2 * np.pi * np.cumsum(pitch) / SPEECH_RATE_HZ
    tone = np.zeros(len(pitch))
    for k in range(1, N_HARMONICS + 1):
        tone += np.sin(k * angle) / k * (k * pitch < 0.475 * SPEECH_RATE_HZ)
    width = int(_FADE_S * SPEECH_RATE_HZ)
    shape = np.hanning(width + 2)[1:-1]
    # The mean of an erosion: 1 inside a note, 0 at and outside its ends.
    gate = np.convolve(pitch > 0, shape / shape.sum(), mode="same") * (pitch > 0)
    tone *= gate
    return Voice((tone * (peak / np.abs(tone).max())).astype(np.float32), pitch)


def _seconds(duration_s: float) -> Curve:
    return np.arange(round(duration_s * SPEECH_RATE_HZ)) / SPEECH_RATE_HZ


def glide(low_hz: float, high_hz: float, duration_s: float = 5.0) -> Voice:
    """Synthesise a glide, linear in cents."""
    return sung(low_hz * (high_hz / low_hz) ** (_seconds(duration_s) / duration_s))


def vibrato(centre_hz: float, *, cents: float = 100.0, rate_hz: float = 5.5, duration_s: float = 3.0) -> Voice:
    """Synthesise a sustained note with a vibrato of +-`cents`."""
    return sung(centre_hz * 2 ** (cents / 1200 * np.sin(2 * np.pi * rate_hz * _seconds(duration_s))))


def notes(pitches_hz: tuple[float, ...], note_s: float = 0.5, gap_s: float = 0.0) -> Voice:
    """Synthesise consecutive notes; a pitch of 0 is a rest."""
    gap = np.zeros(round(gap_s * SPEECH_RATE_HZ))
    parts = [np.concatenate([np.full(round(note_s * SPEECH_RATE_HZ), hz), gap]) for hz in pitches_hz]
    return sung(np.concatenate(parts))


def melody(duration_s: float, seed: int = 0) -> Voice:
    """Synthesise a song-like melody above a sustained chord.

    Its notes last 0.2 to 0.8 s and span two octaves, with vibrato and rests.
    """
    draws = keyed_random.uniform(seed, "benchmark melody", 0, (int(duration_s / 0.2) + 1, 3)).astype(np.float64)
    parts, length = [], 0
    for size, height, rest in draws:
        time = _seconds(0.2 + 0.6 * size)
        hz = 165.0 * 2 ** (np.floor(24 * height) / 12)
        swing = np.sin(2 * np.pi * 5.5 * time) * np.minimum(1, time / 0.2)
        parts.append(hz * 2 ** (swing * 50 / 1200) * (rest > 0.15))
        length += len(time)
        if length >= duration_s * SPEECH_RATE_HZ:
            break
    voice = sung(np.concatenate(parts)[: round(duration_s * SPEECH_RATE_HZ)])
    angle = 2 * np.pi * 110.0 * np.arange(len(voice.audio)) / SPEECH_RATE_HZ
    chord = sum((0.02 * np.sin(2 ** (step / 12) * angle) for step in (0, 4, 7)), np.zeros(len(angle)))
    return Voice(voice.audio + chord.astype(np.float32), voice.pitch)


VOICES: dict[str, Callable[[], Voice]] = {
    "glide 80-800 Hz": lambda: glide(80, 800),
    "glide 70-140 Hz": lambda: glide(70, 140),
    "vibrato 220 Hz": lambda: vibrato(220),
    "vibrato 660 Hz": lambda: vibrato(660),
    "octave jumps": lambda: notes((220, 440, 880, 440, 110, 220)),
    "notes and rests": lambda: notes((196, 294, 247, 392, 330, 165), note_s=0.4, gap_s=0.3),
}
"""Voices for the accuracy measurement."""


@dataclass(frozen=True)
class Score:
    """Score of a contour against the truth; shares are of values, NaN without values."""

    rpa: float
    """Raw pitch accuracy: share of voiced values found voiced and within 50 cents."""
    median_cents: float
    """Median absolute error where both are voiced."""
    gross: float
    """Share of errors above 600 cents where both are voiced."""
    recall: float
    """Share of voiced values that are found voiced."""
    false_alarms: float
    """Share of unvoiced values that are found voiced."""


def steady(truth: NDArray[np.floating[Any]], margin: int) -> NDArray[np.bool_]:
    """Mark values further than `margin` from ends, onsets, offsets and steps between notes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.abs(np.diff(np.log2(truth))) > STEP_CENTS / 1200
    edges = np.flatnonzero(np.concatenate([[True], change | (np.diff(truth > 0) != 0), [True]]))  # before value i
    distance = np.abs(np.arange(len(truth))[:, None] + 0.5 - edges).min(axis=1)
    near: NDArray[np.bool_] = distance < margin
    return ~near


def score(found: NDArray[np.floating[Any]], truth: NDArray[np.floating[Any]], margin: int = 0) -> Score:
    """Score one contour, [T] in Hz, 0 = unvoiced; with a margin, only `steady` values count."""
    if margin:
        kept = steady(truth, margin)
        found, truth = found[kept], truth[kept]
    voiced, detected = truth > 0, found > 0
    both = voiced & detected
    cents = np.abs(1200 * np.log2(found[both].astype(np.float64) / truth[both]))

    def share(part: int, whole: int) -> float:
        return part / whole if whole else float("nan")

    return Score(
        rpa=share(int((cents <= CLOSE_CENTS).sum()), int(voiced.sum())),
        median_cents=float(np.median(cents)) if len(cents) else float("nan"),
        gross=share(int((cents > GROSS_CENTS).sum()), int(both.sum())),
        recall=share(int(both.sum()), int(voiced.sum())),
        false_alarms=share(int((detected & ~voiced).sum()), int((~voiced).sum())),
    )


@dataclass(frozen=True)
class Agreement:
    """Agreement of two contours of the same recording."""

    max_cents: float
    median_cents: float
    n_apart: int
    """Values more than a cent apart where both are voiced."""
    n_voicing: int
    """Values that are voiced in one contour only."""
    n_values: int


def agreement(found: NDArray[np.floating[Any]], reference: NDArray[np.floating[Any]]) -> Agreement:
    """Compare two contours [T]."""
    both = (found > 0) & (reference > 0)
    cents = np.abs(1200 * np.log2(found[both].astype(np.float64) / reference[both]))
    top, middle = (float(np.max(cents)), float(np.median(cents))) if len(cents) else (0.0, 0.0)
    return Agreement(top, middle, int((cents > 1).sum()), int(((found > 0) != (reference > 0)).sum()), len(found))
