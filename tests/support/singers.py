"""Two voices that sing one score: eSpeak's speech, its spectral envelope over an excitation of any pitch.

The envelope carries the voice: a speaker encoder tells the singers apart, and knows each from speech of other words.

Source: A. V. Oppenheim, R. W. Schafer, "Homomorphic analysis of speech", 1968 (envelope by a cepstrum cut short).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.dsp import hann, resample, stft
from tests.support.music import Samples, Wave
from tests.support.speech import say

SINGER, TARGET = "en+klatt2", "en+Annie"
"""Voices without breath noise, which are equal in every process."""
_RATE_HZ = 22_050
_N_FFT, _HOP = 1024, 256
_CEPSTRUM = 48
"""Coefficients kept: 2.2 ms, shorter than any of the voices' periods."""
_FADE = _RATE_HZ // 20
"""Fade at either end in samples."""
_BEAT_S = 0.5
_MELODY = (57, 60, 59, 57, 55, 52, 53, 55, 57, 60, 62, 60, 57, 55, 53, 57)
"""MIDI notes, with the chords of `music.band`."""
_LYRICS = (
    "The river carries every song we knew, and all the lights along the shore are burning low for you. Seven wide"
    " rivers run down to the harbour, and every boat there has a name."
)
_OTHER_WORDS = (
    "The kettle hums and the rain keeps time on the window, while the city sleeps. Nobody counts the hours until the"
    " morning comes."
)


def score_hz(seconds: float, rate_hz: int) -> Wave:
    """The melody with slides and vibrato, Hz at `rate_hz`."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    notes = np.array(_MELODY, float)[(time / _BEAT_S).astype(int) % len(_MELODY)]
    slide = round(0.03 * rate_hz)
    smooth = np.convolve(np.pad(notes, slide // 2, "edge"), np.full(slide, 1 / slide), "same")
    pitch = smooth[slide // 2 : slide // 2 + len(notes)] + 0.3 * np.sin(2 * np.pi * 5.5 * time)
    hz: Wave = 440.0 * 2.0 ** ((pitch - 69.0) / 12.0)
    return hz


@lru_cache(maxsize=8)
def speech(voice: str, rate_hz: int = 44_100) -> Samples:
    """Speak a reference with other words than the song's: float32 [N], read-only."""
    return say(_OTHER_WORDS, voice, rate_hz)


@lru_cache(maxsize=8)
def rendition(voice: str, seconds: float, rate_hz: int = 44_100) -> Samples:
    """Sing the score in a voice: float32 [N], peak 0.5; read-only."""
    envelope = _envelopes(say(_LYRICS, voice, _RATE_HZ, 50, 110))
    hz = score_hz(seconds, _RATE_HZ)
    voiced, noisy = _spectra(_pulses(hz)), _spectra(np.random.default_rng(0).standard_normal(len(hz)))
    at = np.linspace(0, len(envelope) - 1, len(voiced))  # the words, stretched over the score
    gain = np.exp([np.interp(at, np.arange(len(envelope)), band) for band in envelope.T]).T
    bins_hz = np.fft.rfftfreq(_N_FFT, 1 / _RATE_HZ)
    hiss = gain[:, bins_hz > 3500].mean(axis=1) / gain[:, bins_hz < 1500].mean(axis=1)
    breath = np.clip(hiss - 0.5, 0.0, 1.0)[:, None]  # a consonant is noise
    audio = _overlap_add((voiced * (1 - breath) + 0.3 * noisy * breath) * gain)[: len(hz)]
    audio *= np.clip(np.minimum(np.arange(len(hz)), np.arange(len(hz))[::-1]) / _FADE, 0.0, 1.0)
    sung = resample((0.5 * audio / np.abs(audio).max()).astype(np.float32), _RATE_HZ, rate_hz)
    sung.setflags(write=False)
    return sung


def _envelopes(audio: Samples) -> Wave:
    """Logarithm of the spectral envelope [T, bin]."""
    cepstrum = np.fft.irfft(np.log(np.abs(_spectra(audio)) + 1e-6), axis=-1)
    cepstrum[:, _CEPSTRUM : 1 - _CEPSTRUM] = 0.0
    return np.fft.rfft(cepstrum, axis=-1).real


def _pulses(hz: Wave) -> Wave:
    """All harmonics at one power per hertz."""
    phase = 2 * np.pi * np.cumsum(hz) / _RATE_HZ
    total = sum((np.cos(h * phase) for h in range(1, int(_RATE_HZ / 2 / hz.max()) + 1)), np.zeros(len(hz)))
    pulses: Wave = total * np.sqrt(4 * hz / _RATE_HZ)
    return pulses


def _spectra(audio: NDArray[np.floating]) -> NDArray[np.complex128]:
    return stft(audio.astype(np.float32), _N_FFT, _HOP, pad=_N_FFT // 2)


def _overlap_add(spectra: NDArray[np.complex128]) -> Wave:
    pieces = np.fft.irfft(spectra, _N_FFT, axis=-1) * hann(_N_FFT)
    total = np.zeros(len(spectra) * _HOP + _N_FFT)
    for index, piece in enumerate(pieces):
        total[index * _HOP : index * _HOP + _N_FFT] += piece
    return total[_N_FFT // 2 :] / 1.5  # four windows squared over one another
