"""Synthetic music for tests: a band, a singer, their mix, and files of any format."""

from __future__ import annotations

import io
import math
from functools import lru_cache

import lameenc
import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import butter, lfilter, resample_poly, sosfilt

from tests.support.speech import say

Samples = NDArray[np.float32]
Wave = NDArray[np.float64]

BEAT_S = 0.5
MIX_PEAK_DBTP = -2.0
"""True peak of a `song`; the limiter acts only above -1 dBTP."""
_CHORDS = ((57, 60, 64), (53, 57, 60), (48, 52, 55), (55, 59, 62))  # Am F C G, MIDI notes
_MELODY = (69, 72, 71, 69, 67, 64, 65, 67, 0, 72, 74, 72, 69, 67, 65, 0)  # MIDI notes, 0 is a breath
_FORMANTS = ((730, 1090, 2440), (270, 2290, 3010), (570, 840, 2410), (530, 1840, 2480), (300, 870, 2240))
"""First three formants of ah, ee, oh, eh, oo in Hz (Peterson and Barney, 1952, men)."""
_WORDS = "The river carries every song we knew, and all the lights along the shore are burning low for you."


def _hz(note: float) -> float:
    return float(440.0 * 2.0 ** ((note - 69.0) / 12.0))


def _add(track: Wave, sound: Wave, at: int) -> None:
    """Add `sound` to `track` from sample `at`, as far as the track reaches."""
    n = min(len(sound), len(track) - at)
    if n > 0:
        track[at : at + n] += sound[:n]


def _pan(track: Wave, position: float) -> Wave:
    """[2, N] with equal power; -1 left, 1 right."""
    angle = (position + 1.0) * math.pi / 4.0
    return np.stack([math.cos(angle) * track, math.sin(angle) * track])


def true_peak_dbtp(audio: NDArray[np.floating]) -> float:
    """Peak of [..., N], eight times oversampled, in dB of full scale."""
    peak = float(np.abs(resample_poly(audio.astype(np.float64), 8, 1, axis=-1)).max(initial=0.0))
    return 20.0 * math.log10(max(peak, 1e-10))


@lru_cache(maxsize=16)
def band(seconds: float, sample_rate_hz: int = 44_100, seed: int = 0) -> Samples:
    """Drums, bass and two guitars, panned: float32 [2, N], peaks about -6 dBFS; read-only."""
    rng, n = np.random.default_rng(seed), round(seconds * sample_rate_hz)
    kick, snare, hat, bass, left, right = (np.zeros(n) for _ in range(6))
    beat = round(BEAT_S * sample_rate_hz)
    t = np.arange(beat) / sample_rate_hz
    thump = np.sin(2 * np.pi * (45 * t + 6.0 * (1 - np.exp(-t / 0.03)))) * np.exp(-t / 0.12)
    high = butter(2, min(6000, 0.4 * sample_rate_hz), "highpass", fs=sample_rate_hz, output="sos")
    tick = sosfilt(high, rng.standard_normal(beat)) * np.exp(-t / 0.025)
    strings: dict[tuple[int, float], Wave] = {}
    for index, at in enumerate(range(0, n, beat)):
        chord = _CHORDS[index // 4 % len(_CHORDS)]
        if index % 2 == 0:
            _add(kick, thump, at)
        else:
            _add(snare, (rng.standard_normal(beat) * 0.5 + np.sin(2 * np.pi * 190 * t)) * np.exp(-t / 0.06), at)
        for eighth in (0, beat // 2):
            _add(hat, tick, at + eighth)
        root = 2 * np.pi * _hz(chord[0] - 24) * t
        _add(bass, sum((np.sin(k * root) / k for k in range(1, 6)), np.zeros(beat)) * np.exp(-t / 0.4), at)
        for side, detune in ((left, -0.04), (right, 0.05)):
            for note in chord:
                if (note, detune) not in strings:
                    strings[note, detune] = _string(_hz(note + detune), beat, sample_rate_hz, rng)
                _add(side, strings[note, detune], at)
    parts = ((kick, 0.0, 0.35), (snare, -0.1, 0.22), (hat, 0.35, 0.05), (bass, 0.0, 0.22), (left, -0.7, 0.16))
    mixed = sum((gain * _pan(track, place) for track, place, gain in (*parts, (right, 0.7, 0.16))), np.zeros((2, n)))
    audio = (mixed / max(float(np.abs(mixed).max(initial=0.0)), 1e-9) * 0.5).astype(np.float32)
    audio.setflags(write=False)
    return audio


def _string(hz: float, n: int, sample_rate_hz: int, rng: np.random.Generator) -> Wave:
    """A plucked string (Karplus and Strong, 1983)."""
    period = max(2, round(sample_rate_hz / hz))
    rounds = [rng.uniform(-1, 1, period)]
    while len(rounds) * period < n:
        rounds.append(0.498 * (rounds[-1] + np.roll(rounds[-1], 1)))
    plucked: Wave = np.concatenate(rounds)[:n]
    return plucked


@lru_cache(maxsize=16)
def singer(seconds: float, sample_rate_hz: int = 44_100, seed: int = 0, *, semitones: float = 0.0) -> Samples:
    """Sung vowels with vibrato and breaths: float32 [N], peak 0.5; read-only.

    Args:
        seconds: length of the result.
        sample_rate_hz: sample rate of the result.
        seed: another seed sings the same melody with other vowels, timing and vibrato.
        semitones: transposes the melody.
    """
    rng, n = np.random.default_rng(seed), round(seconds * sample_rate_hz)
    t = np.arange(n) / sample_rate_hz
    note = np.minimum((t / BEAT_S).astype(int), 10_000) % len(_MELODY)
    notes = np.array(_MELODY, float)
    smooth = max(1, round(0.03 * sample_rate_hz))
    kernel = np.ones(smooth) / smooth
    pitch = np.convolve(np.where(notes[note] > 0, notes[note], 67.0), kernel, "same") if n else t
    vibrato = 0.35 * np.sin(2 * np.pi * rng.uniform(5.0, 6.0) * t + rng.uniform(0, 6))
    hz = 440.0 * 2.0 ** ((pitch - 12 - 69 + semitones + vibrato) / 12.0)  # an octave below the written melody
    phase = np.cumsum(hz) / sample_rate_hz
    # Squared and differentiated, a sawtooth hardly aliases (Valimaki, 2005).
    saw = np.diff((2.0 * (phase % 1.0) - 1.0) ** 2, prepend=1.0) * sample_rate_hz / (4.0 * hz)
    source = saw + 0.05 * rng.standard_normal(n)  # breath
    voice = np.zeros(n)
    for start in range(0, n, round(BEAT_S * sample_rate_hz)):
        part = slice(start, start + round(BEAT_S * sample_rate_hz))
        voice[part] = _vowel(source[part], int(rng.integers(len(_FORMANTS))), sample_rate_hz)
    sung = np.convolve((notes[note] > 0).astype(float), kernel, "same") if n else t
    voice *= sung * (0.8 + 0.2 * np.sin(2 * np.pi * 0.7 * t))
    audio = (0.5 * voice / max(float(np.abs(voice).max(initial=0.0)), 1e-9)).astype(np.float32)
    audio.setflags(write=False)
    return audio


def _vowel(source: Wave, which: int, sample_rate_hz: int) -> Wave:
    """A source through the formants of one vowel, faded at its ends."""
    vowel = np.zeros(len(source))
    for hz, (gain, width) in zip(_FORMANTS[which], ((1.0, 90.0), (0.6, 110.0), (0.4, 170.0)), strict=True):
        radius = math.exp(-math.pi * width / sample_rate_hz)
        pole = [1.0, -2.0 * radius * math.cos(2 * math.pi * hz / sample_rate_hz), radius**2]
        vowel += gain * lfilter([1.0 - radius, 0.0, radius - 1.0], pole, source)
    fade = min(round(0.02 * sample_rate_hz), len(source) // 2)
    ramp = np.ones(len(source))
    if fade:
        ramp[:fade] = np.linspace(0, 1, fade)
        ramp[-fade:] = np.linspace(1, 0, fade)
    return vowel * ramp


@lru_cache(maxsize=16)
def speaker(seconds: float, sample_rate_hz: int = 44_100, voice: str = "en") -> Samples:
    """Speech, repeated to length: float32 [N], peak 0.5; read-only."""
    words = say(_WORDS, voice, sample_rate_hz)
    n = round(seconds * sample_rate_hz)
    audio = np.resize(words, n).astype(np.float32)
    audio *= np.float32(0.5 / max(float(np.abs(audio).max(initial=0.0)), 1e-9))
    audio.setflags(write=False)
    return audio


def room(voice: Samples, sample_rate_hz: int = 44_100, seed: int = 0, *, wet: float = 0.25) -> Samples:
    """Add a stereo room with different sides to a voice: [N] to [2, N]."""
    rng, n = np.random.default_rng(seed), round(0.25 * sample_rate_hz)
    decay = np.exp(-np.arange(n) / (0.06 * sample_rate_hz))
    echoes = rng.standard_normal((2, n)) * decay
    echoes[:, : round(0.005 * sample_rate_hz)] = 0.0
    echoes /= np.linalg.norm(echoes, axis=1, keepdims=True)
    size = 1 << (len(voice) + n - 1).bit_length()
    spectrum = np.fft.rfft(voice.astype(np.float64), size)
    wetness = np.stack([np.fft.irfft(spectrum * np.fft.rfft(echo, size), size)[: len(voice)] for echo in echoes])
    both: Samples = (voice + wet * wetness).astype(np.float32)
    return both


@lru_cache(maxsize=8)
def song(seconds: float, sample_rate_hz: int = 44_100, seed: int = 0) -> tuple[Samples, Samples, Samples]:
    """A singer, slightly left and in a room, with a band: (mix, vocals, band), float32 [2, N], read-only.

    mix = vocals + band up to rounding; its true peak is `MIX_PEAK_DBTP`, so no limiter changes it.
    """
    gains = np.array([[0.8], [0.6]], np.float32)
    vocals = room(singer(seconds, sample_rate_hz, seed), sample_rate_hz, seed) * gains
    backing = band(seconds, sample_rate_hz, seed)
    gain = np.float32(10.0 ** ((MIX_PEAK_DBTP - true_peak_dbtp(vocals + backing)) / 20.0))
    vocals, backing = vocals * gain, backing * gain
    parts = (vocals + backing, vocals, backing)
    for part in parts:
        part.setflags(write=False)
    return parts


def encode(
    audio: NDArray[np.floating], sample_rate_hz: int = 44_100, format: str = "WAV", subtype: str | None = None
) -> bytes:
    """A file as bytes: [N] or [C, N] in libsndfile's `format` and `subtype` (default: the format's own)."""
    file = io.BytesIO()
    with soundfile.SoundFile(
        file, "w", sample_rate_hz, 1 if audio.ndim == 1 else len(audio), subtype, format=format
    ) as out:
        for block in np.array_split(audio.T, max(1, len(audio.T) // sample_rate_hz)):  # libvorbis takes little at once
            out.write(block)
    return file.getvalue()


def lame(audio: np.ndarray, rate_hz: int = 44_100, *, variable: bool = True) -> bytes:
    """MP3 without a Xing header, as LAME writes it to a pipe."""
    encoder = lameenc.Encoder()
    encoder.set_in_sample_rate(rate_hz)
    encoder.set_channels(len(audio))
    encoder.silence()
    if variable:
        encoder.set_vbr(4)
        encoder.set_vbr_quality(4)
    pcm = (np.clip(audio, -1, 1) * 32_767).astype("<i2").T.tobytes()
    return bytes(encoder.encode(pcm)) + bytes(encoder.flush())
