"""A synthetic singer made of glottis, vocal tract and melody, with numpy and scipy.

    from tests.support.vocal_tract import SINGERS, VOCALISE, sing
    audio = sing(SINGERS[0], VOCALISE, seconds=12.0)          # float64 [N] at 48 kHz

Glottal pulses (Rosenberg, 1971) with breath noise pass through a cascade of resonances (Klatt, 1980), which move from
vowel to vowel. The length of the tract and the closing of the vocal folds define the singer. Equal calls give equal
samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, resample_poly, sosfilt

Wave = NDArray[np.float64]

RATE_HZ = 48_000
BEAT_S = 0.6
PEAK = 0.5
"""Peak of `sing`'s result, -6 dBFS."""

_OVERSAMPLING = 4
"""A glottal pulse ends abruptly; at this multiple of the rate its overtones do not alias audibly."""
_BLOCK = 128
"""Samples, about 3 ms, during which the tract is constant."""
_GLIDE_S = 0.08
"""Duration of the transition between pitches or vowels."""
_SYLLABLE_S = 0.07
"""Duration of the raised tongue at the beginning of a note."""
_VIBRATO_AFTER_S = 0.3
_BREATH_S = 0.4
"""Duration of a breath in the last part of a rest."""
_CUTOFF_HZ = 20_000.0

_FORMANTS = {
    "a": (730.0, 1090.0, 2440.0, 3400.0),
    "e": (530.0, 1840.0, 2480.0, 3500.0),
    "i": (270.0, 2290.0, 3010.0, 3600.0),
    "o": (570.0, 840.0, 2410.0, 3300.0),
    "u": (300.0, 870.0, 2240.0, 3300.0),
    "l": (360.0, 1300.0, 2700.0, 3400.0),
}
"""Resonances in Hz of a man's tract (Peterson and Barney, 1952; the fourth is rounded)."""
_BANDWIDTHS_HZ = (70.0, 90.0, 130.0, 180.0)
_HIGHER_HZ = 1000.0
"""Distance of the resonances above the fourth, as in a tube."""


@dataclass(frozen=True)
class Singer:
    """Parameters of a singer."""

    name: str
    tonic: int
    """MIDI note of the scale's first degree."""
    tract: float
    """Resonances relative to an average man's; a shorter tract has higher ones."""
    open_share: float
    """Share of a period with open vocal folds; larger values sound softer."""
    edge_hz: float
    """Cut-off in Hz above which overtones fall off faster; depends on how hard the folds close."""
    breath: float
    """Noise in the airflow: 0.1 is clear, 0.4 breathy."""
    vibrato_hz: float
    vibrato_cents: float
    seed: int


SINGERS = (
    Singer("alto", 57, 1.20, 0.68, 3600.0, 0.40, 5.7, 40.0, seed=1),
    Singer("baritone", 48, 0.88, 0.46, 5000.0, 0.10, 5.2, 55.0, seed=2),
    Singer("soprano", 62, 1.28, 0.72, 4500.0, 0.30, 6.2, 45.0, seed=3),
    Singer("tenor", 52, 1.02, 0.56, 5500.0, 0.15, 5.5, 50.0, seed=4),
    Singer("bass", 41, 0.84, 0.44, 3600.0, 0.15, 4.8, 35.0, seed=5),
)


@dataclass(frozen=True)
class Note:
    """One syllable, or a rest."""

    degree: int | None
    """Semitones above the tonic; None is a rest."""
    beats: float
    vowel: str = "a"


def phrase(*notes: tuple[int | None, float], vowels: str) -> tuple[Note, ...]:
    """Make notes of (semitones above the tonic, beats) on the vowels in turn, each like "la"."""
    sounds = cycle(vowels)
    return tuple(Note(degree, beats, "a" if degree is None else next(sounds)) for degree, beats in notes)


VOCALISE = (
    *phrase((0, 1), (2, 1), (4, 1), (5, 1), (7, 2), (5, 1), (4, 1), (2, 1), (0, 2), (None, 1), vowels="aeiou"),
    *phrase((7, 1), (4, 1), (0, 1), (4, 1), (7, 2), (9, 1), (11, 1), (12, 3), (None, 1), vowels="iaoeu"),
)
"""A warm-up exercise with every vowel and an octave."""


# ------------------------------------------------------------------------------------------------------------ the score


@dataclass(frozen=True)
class Score:
    """Parameters of the song at every sample."""

    semitones: Wave
    """MIDI pitch [N], with glides, constant through rests."""
    sounding: Wave
    """Level [N], 0 to 1; 0 in rests."""
    inhaling: Wave
    """Level of the breath [N], 0 to 1."""
    age_s: Wave
    """Seconds [N] since the note began."""
    formants: Wave
    """Resonances of an average man's tract in Hz, [N / block, 4]."""

    def hz(self, cents: Wave | float = 0.0) -> Wave:
        """Return the pitch in Hz, shifted by `cents`."""
        return np.asarray(440.0 * 2.0 ** ((self.semitones - 69.0 + cents / 100.0) / 12.0))


def read_score(melody: tuple[Note, ...], tonic: int, seconds: float) -> Score:
    """Read a melody from its beginning, repeated to the given length."""
    n = round(seconds * RATE_HZ)
    starts, notes, at = [], [], 0.0
    for note in cycle(melody):
        if at >= seconds:
            break
        starts.append(at)
        notes.append(note)
        at += note.beats * BEAT_S
    time = np.arange(n) / RATE_HZ
    index = np.searchsorted(starts, time, side="right") - 1
    age = time - np.array(starts)[index]
    left = np.append(starts[1:], at)[index] - time
    sung = np.array([note.degree is not None for note in notes])[index]
    breath = ~sung & (left < _BREATH_S)
    return Score(
        semitones=_smooth(_held_degrees(notes)[index] + tonic),
        sounding=_smooth(np.where(sung, np.where(age < _SYLLABLE_S, 0.5, 1.0), 0.0)),
        inhaling=np.where(breath, np.sin(np.pi * left / _BREATH_S), 0.0),
        age_s=age,
        formants=_formant_tracks(notes, index, age),
    )


def _held_degrees(notes: list[Note]) -> Wave:
    """Give rests the next degree, so that phrases begin in tune; final rests keep the last."""
    held, following = [], next((note.degree for note in reversed(notes) if note.degree is not None), 0)
    for note in reversed(notes):
        following = following if note.degree is None else note.degree
        held.append(float(following))
    return np.array(held[::-1])


def _formant_tracks(notes: list[Note], index: NDArray[np.intp], age: Wave) -> Wave:
    """Resonances in the middle of every block, [n_blocks, 4]."""
    vowels = np.array([_FORMANTS[note.vowel] for note in notes])[index]
    tracks = np.where((age < _SYLLABLE_S)[:, None], _FORMANTS["l"], vowels)
    middles = np.minimum(np.arange(0, len(index), _BLOCK) + _BLOCK // 2, len(index) - 1)
    return np.stack([_smooth(track)[middles] for track in tracks.T], axis=1)


def _smooth(steps: Wave) -> Wave:
    """Turn steps into glides; both ends are extended."""
    width = round(_GLIDE_S * RATE_HZ) // 2
    window = np.hanning(2 * width + 3)[1:-1]
    return np.asarray(fftconvolve(np.pad(steps, width, mode="edge"), window / window.sum(), mode="valid"))


# ------------------------------------------------------------------------------------------------------------ the voice


def sing(singer: Singer, melody: tuple[Note, ...], seconds: float) -> Wave:
    """Sing a melody from its beginning.

    Args:
        singer: parameters of the singer.
        melody: notes; they are repeated.
        seconds: length, above 0.

    Returns:
        float64 [N] at 48 kHz with a peak of 0.5, N = seconds * 48 000.
    """
    rng = np.random.default_rng(singer.seed)
    score = read_score(melody, singer.tonic, seconds)
    n = len(score.age_s)
    time = np.arange(n) / RATE_HZ
    ripe = np.clip(score.age_s / _VIBRATO_AFTER_S - 1.0, 0.0, 1.0)
    vibrato = singer.vibrato_cents * ripe * np.sin(2 * np.pi * singer.vibrato_hz * time)
    jitter, shimmer = _wander(rng, n, 4.0), _wander(rng, n, 0.02)
    flow, edges = _pulses(score.hz(vibrato + jitter), singer.open_share)
    air = rng.standard_normal(n)
    swell = 0.85 + 0.15 * np.sin(2 * np.pi * time / (8 * BEAT_S))
    voiced = (_darker(edges, singer.edge_hz) + singer.breath * flow * air) * score.sounding * swell * (1.0 + shimmer)
    audio = _tract(voiced + 0.01 * score.inhaling * air, score.formants * singer.tract, singer.tract)
    return np.asarray(PEAK * audio / np.abs(audio).max())


def _pulses(hz: Wave, open_share: float) -> tuple[Wave, Wave]:
    """Return the glottal airflow, 0 to 1, and its derivative, which the lips radiate: both [N]."""
    fine = np.repeat(hz, _OVERSAMPLING)
    phase = np.cumsum(fine / (RATE_HZ * _OVERSAMPLING)) % 1.0
    rise, fall = open_share * 2 / 3, open_share / 3
    falling = np.clip((phase - rise) / fall, 0.0, 1.0)
    flow = np.where(phase < rise, 0.5 - 0.5 * np.cos(np.pi * phase / rise), np.cos(np.pi / 2 * falling))
    slope = np.where(phase < rise, np.sin(np.pi * phase / rise) / rise, -np.sin(np.pi / 2 * falling) / fall)
    slope[phase >= open_share] = 0.0
    return flow[::_OVERSAMPLING], resample_poly(slope * (np.pi / 2), 1, _OVERSAMPLING)


def _darker(edges: Wave, edge_hz: float) -> Wave:
    """Filter the pulses as folds that do not close instantly."""
    return np.asarray(sosfilt(butter(1, edge_hz, fs=RATE_HZ, output="sos"), edges))


def _wander(rng: np.random.Generator, n: int, size: float) -> Wave:
    """Involuntary variation: slow noise [N] of root mean square `size`."""
    noise = sosfilt(butter(2, 25.0, fs=RATE_HZ, output="sos"), rng.standard_normal(n))
    return np.asarray(size * noise / np.sqrt(np.mean(noise**2)))


def _tract(source: Wave, formants: Wave, tract: float) -> Wave:
    """Filter a source [N] by resonances that change from block to block, formants [n_blocks, 4] in Hz."""
    higher = np.arange(4.5 * _HIGHER_HZ * tract, _CUTOFF_HZ, _HIGHER_HZ * tract)
    widths = np.concatenate([_BANDWIDTHS_HZ, 0.045 * higher])
    radius = np.exp(-np.pi * widths / RATE_HZ)
    sections = np.zeros((len(widths), 6))  # y[n] = b0 x[n] - a1 y[n - 1] - a2 y[n - 2]
    sections[:, 3], sections[:, 5] = 1.0, radius**2
    state = np.zeros((len(widths), 2))
    audio = np.empty_like(source)
    for at, four in zip(range(0, len(source), _BLOCK), formants, strict=True):
        a1 = -2.0 * radius * np.cos(2 * np.pi * np.concatenate([four, higher]) / RATE_HZ)
        # scipy's state contains the old a1, whose step would cause a click. The state's second part is -a2 y[n - 1].
        state[:, 0] += (a1 - sections[:, 4]) * state[:, 1] / sections[:, 5]
        sections[:, 0], sections[:, 4] = 1.0 + a1 + radius**2, a1  # a gain of 1 at 0 Hz
        audio[at : at + _BLOCK], state = sosfilt(sections, source[at : at + _BLOCK], zi=state)
    return audio
