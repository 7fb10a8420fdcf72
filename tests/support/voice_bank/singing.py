"""Turns a spoken line into a sung one: WORLD's analysis, vowels stretched onto the beat, a melody instead of the pitch.

Source: M. Morise, F. Yokomori, K. Ozawa, "WORLD: a vocoder-based high-quality speech synthesis system", 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyworld
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

Wave = NDArray[np.float64]

FRAME_S = 0.005
"""WORLD's frame period."""
_STEADY_S = 0.05
"""Half of the part around a vowel's middle that takes what a note is longer than its syllable."""
_CONSONANTS = 1.2
"""How much slower than speech the rest of a syllable is sung."""
_STRETCH = 1.5
"""Length of a note relative to its spoken syllable, before it is rounded to eighths."""
_LONGEST_EIGHTHS = 3
_LAST_EIGHTHS = 4
_GLIDE_S = 0.09
_VIBRATO_AFTER_S, _VIBRATO_CENTS, _VIBRATO_HZ = 0.25, 35.0, 5.6
_DRIFT_CENTS = 6.0
_ALL_NOISE = 0.99


@dataclass(frozen=True)
class Analysis:
    """WORLD's parameters of a spoken line, one row every 5 ms."""

    f0_hz: Wave
    """[T], 0 = unvoiced."""
    envelope: Wave
    """[T, bin], power."""
    aperiodicity: Wave
    """[T, bin], 0 to 1."""
    onsets: NDArray[np.intp]
    """[S + 1]: first frame of each syllable's vowel, then the end of the line."""
    vowels: NDArray[np.intp]
    """[S]: loudest frame of each syllable."""


@dataclass(frozen=True)
class SungLine:
    """One sung line."""

    audio: NDArray[np.float32]
    """[N] at the rate of the speech."""
    f0_hz: Wave
    """[T] every 5 ms, 0 where the singer has no voice: what was synthesised, so exact."""
    lead_s: float
    """From the beginning to the first note; the consonants before it are earlier."""


def analyse(speech: NDArray[np.float32], rate_hz: int, places: Sequence[float], n_sounds: int) -> Analysis:
    """Analyse a spoken line.

    Args:
        speech: [N], with at least 0.1 s of sound.
        rate_hz: its sample rate.
        places: where its syllables' vowels are among its phonemes, at least one.
        n_sounds: number of its phonemes.
    """
    audio = speech.astype(np.float64)
    f0, time = pyworld.harvest(audio, rate_hz, f0_floor=60.0, f0_ceil=500.0, frame_period=1000 * FRAME_S)
    sonority = _sonority(audio, rate_hz, len(f0))
    vowels = find_vowels(sonority, places, n_sounds)
    return Analysis(
        f0_hz=f0,
        envelope=pyworld.cheaptrick(audio, f0, time, rate_hz),
        aperiodicity=pyworld.d4c(audio, f0, time, rate_hz),
        onsets=_vowel_onsets(sonority, vowels),
        vowels=vowels,
    )


def _sonority(audio: Wave, rate_hz: int, n_frames: int) -> Wave:
    """Level in dB where vowels are loud and fricatives are not, [T], at least 40 below the loudest."""
    band = sosfiltfilt(butter(2, (300.0, 3000.0), "bandpass", fs=rate_hz, output="sos"), audio)
    hop, width = round(FRAME_S * rate_hz), round(0.04 * rate_hz)
    power = np.convolve(band**2, np.hanning(width) / width, "same")
    power = np.pad(power, (0, max(0, n_frames * hop - len(power))))[: n_frames * hop : hop]
    return np.asarray(np.maximum(10 * np.log10(power / power.max() + 1e-12), -40.0))


def find_vowels(sonority: Wave, places: Sequence[float], n_sounds: int) -> NDArray[np.intp]:
    """Find one loud frame for each syllable, about as far apart as its phonemes say.

    A path through the frames: 1 for each dB, less 30 times the squared relative error of each distance.

    Args:
        sonority: [T] in dB.
        places: as in `analyse`.
        n_sounds: as in `analyse`.

    Returns:
        [S] frames, ascending.
    """
    heard = np.flatnonzero(sonority > -30.0)
    first, last = int(heard[0]), int(heard[-1])
    pace = (last - first) / n_sounds
    frames = np.arange(len(sonority))
    best = sonority - 30.0 * ((frames - first) / (places[0] * pace) - 1.0) ** 2
    came_from = []
    for gap in np.diff(places) * pace:
        steps = np.arange(max(8, round(0.3 * gap)), max(round(2.5 * gap), 9) + 1)
        candidates = np.full((len(steps), len(frames)), -np.inf)
        for row, step in enumerate(steps[steps < len(frames)]):
            candidates[row, step:] = best[:-step] - 30.0 * (step / gap - 1.0) ** 2
        chosen = candidates.argmax(axis=0)
        came_from.append(steps[chosen])
        best = candidates.max(axis=0) + sonority
    best = best - 30.0 * ((last - frames) / ((n_sounds - places[-1]) * pace) - 1.0) ** 2
    path = [int(best[: last + 1].argmax())]
    for steps_back in reversed(came_from):
        path.append(path[-1] - int(steps_back[path[-1]]))
    return np.array(path[::-1])


def _vowel_onsets(sonority: Wave, vowels: NDArray[np.intp]) -> NDArray[np.intp]:
    """First frame of each vowel, halfway up from the consonant before it, and the line's end, [S + 1]."""
    onsets, before = [], 0
    for vowel in vowels:
        low = before + int(sonority[before : vowel + 1].argmin())
        half = (sonority[low] + sonority[vowel]) / 2
        onsets.append(low + int((sonority[low : vowel + 1] >= half).argmax()))
        before = int(vowel)
    return np.array([*onsets, int(np.flatnonzero(sonority > -35.0)[-1]) + 1])


def note_lengths(line: Analysis, eighth_s: float) -> list[int]:
    """Return the length of each syllable's note in eighths; the last is long."""
    spoken = np.diff(line.onsets) * FRAME_S
    lengths = [int(np.clip(round(_STRETCH * seconds / eighth_s), 1, _LONGEST_EIGHTHS)) for seconds in spoken]
    return [*lengths[:-1], _LAST_EIGHTHS]


def sing(
    line: Analysis, rate_hz: int, lengths: Sequence[int], notes: Sequence[float], eighth_s: float, seed: int
) -> SungLine:
    """Sing a line.

    Args:
        line: the analysed speech.
        rate_hz: its sample rate.
        lengths: of each note in eighths.
        notes: MIDI numbers, one a syllable.
        eighth_s: duration of an eighth in seconds.
        seed: of the drift and the vibrato's phase.
    """
    at = _warp(line, lengths, eighth_s)
    nearest = np.clip(np.rint(at).astype(int), 0, len(line.f0_hz) - 1)
    lead = float(np.searchsorted(at, line.onsets[0])) * FRAME_S
    pitch = _melody(len(at), lead, lengths, notes, eighth_s, np.random.default_rng(seed))
    # Where D4C heard no voice, aperiodicity is 1 and WORLD makes noise, whatever the pitch.
    voiced = (line.f0_hz > 0) & (line.aperiodicity[:, 1] < _ALL_NOISE)
    f0 = np.where(voiced[nearest], pitch, 0.0)
    envelope = np.exp(_rows(np.log(line.envelope), at))
    audio = pyworld.synthesize(f0, envelope, _rows(line.aperiodicity, at), rate_hz, 1000 * FRAME_S)
    return SungLine(audio.astype(np.float32), f0, lead)


def _warp(line: Analysis, lengths: Sequence[int], eighth_s: float) -> Wave:
    """Place in the speech, in frames, of every frame of the sung line."""
    spoken, sung = [0.0, float(line.onsets[0])], [0.0, float(line.onsets[0])]
    for start, end, vowel, length in zip(line.onsets[:-1], line.onsets[1:], line.vowels, lengths, strict=True):
        half = min(_STEADY_S / FRAME_S, (end - start) / 4)
        middle = min(max(vowel, start + half), end - half)
        before, after = middle - half - start, end - middle - half
        note = length * eighth_s / FRAME_S
        rest = min(_CONSONANTS, 0.6 * note / max(before + after, 1e-9))
        begin = sung[-1]
        spoken += [middle - half, middle + half, float(end)]
        sung += [begin + rest * before, begin + note - rest * after, begin + note]
    tail = len(line.f0_hz) - 1 - spoken[-1]
    return np.interp(np.arange(int(sung[-1] + tail)), [*sung, sung[-1] + tail], [*spoken, spoken[-1] + tail])


def _rows(values: Wave, at: Wave) -> Wave:
    """Interpolate between rows [T, bin]."""
    low = np.clip(np.floor(at).astype(int), 0, len(values) - 2)
    share = (at - low)[:, None]
    return np.asarray((1 - share) * values[low] + share * values[low + 1])


def _melody(
    n: int, lead_s: float, lengths: Sequence[int], notes: Sequence[float], eighth_s: float, rng: np.random.Generator
) -> Wave:
    """Pitch in Hz of every frame: glides between notes, vibrato on long ones, and a slow drift."""
    time = np.arange(n) * FRAME_S - lead_s
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]) * eighth_s
    index = np.maximum(np.searchsorted(starts, time, side="right") - 1, 0)
    width = round(_GLIDE_S / FRAME_S)
    window = np.hanning(2 * (width // 2) + 3)[1:-1]
    steps = np.pad(np.asarray(notes, float)[index], len(window) // 2, mode="edge")
    semitones = np.convolve(steps, window / window.sum(), "valid")
    age = time - starts[index]
    ripe = np.clip((age - _VIBRATO_AFTER_S) / 0.2, 0.0, 1.0)
    vibrato = _VIBRATO_CENTS * ripe * np.sin(2 * np.pi * _VIBRATO_HZ * age)
    drift = np.cumsum(rng.standard_normal(n))
    drift -= np.linspace(0.0, drift[-1], n)
    cents = vibrato + _DRIFT_CENTS * drift / max(float(np.abs(drift).max()), 1e-9)
    return np.asarray(440.0 * 2.0 ** ((semitones - 69.0 + cents / 100.0) / 12.0))
