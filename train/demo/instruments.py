"""Measures FluidR3's instruments: harmonics of single notes every 20 ms, and drums as waves."""

from __future__ import annotations

import numpy as np
import symusic
from numpy.typing import NDArray

from train.demo import harmony, layout
from train.demo.band import DRUM_FADE_SAMPLES, STEP_S, BandTables, note_name
from train.demo.layout import DRUMS, FRAME_HZ, FRAME_SAMPLES, SAMPLE_RATE_HZ
from train.voices import packages

PROGRAMS: dict[str, int] = {"piano": 0, "guitar": 25, "strings": 48, "flute": 73, "music box": 10, "bass": 33}
"""General MIDI's, from 0."""
_DRUM_NOTES: dict[str, tuple[int, float]] = {"kick": (36, 0.22), "snare": (38, 0.16), "hat": (42, 0.10)}
"""MIDI note, and the root mean square of its first frame."""
_SECONDS = 1.1
_MAX_HARMONICS = 40
_TOP_HZ = 9500.0
_DRUM_TOP_HZ = 10_000.0
_TICKS = 480
_BPM = 60.0


def measure() -> BandTables:
    """Measure every note that the band plays.

    Raises:
        ExportError: the sound font cannot be fetched.
    """
    font = symusic.Synthesizer(sf_path=str(packages.sound_font()), sample_rate=SAMPLE_RATE_HZ, quality=4)
    pitches = {
        **{
            name: sorted({u for voicing in harmony.VOICINGS.values() for u in voicing})
            for name in layout.CHORD_INSTRUMENTS
        },
        **{name: list(harmony.LEAD_UNITS) for name in layout.LEAD_INSTRUMENTS},
        "bass": sorted(set(harmony.BASS_UNITS.values())),
    }
    notes = {
        note_name(name, units): _harmonics(font, PROGRAMS[name], units * FRAME_HZ)
        for name, all_units in pitches.items()
        for units in all_units
    }
    return BandTables(notes, {name: _drum(font, name) for name in DRUMS})


def _play(font: symusic.core.Synthesizer, program: int | None, note: int, seconds: float) -> NDArray[np.float64]:
    """Return one note, or a drum if there is no program, [N] at 48 kHz."""
    score = symusic.Score(_TICKS)
    score.tempos.append(symusic.Tempo(0, _BPM))
    track = symusic.Track("", program or 0, program is None)
    track.notes.append(symusic.Note(0, round(seconds * _TICKS * _BPM / 60), note, 100))
    score.tracks.append(track)
    audio = np.asarray(font.render(score, stereo=False)[0], np.float64)
    n = round(seconds * SAMPLE_RATE_HZ)
    return np.pad(audio, (0, max(0, n - len(audio))))[:n]


def _harmonics(font: symusic.core.Synthesizer, program: int, hz: float) -> NDArray[np.float32]:
    """Measure the harmonics of the nearest note of the scale, [row, K]."""
    note = round(69 + 12 * np.log2(hz / 440))
    played_hz = 440 * 2 ** ((note - 69) / 12)
    wave = _play(font, program, note, _SECONDS + 0.2)
    n_harmonics = min(_MAX_HARMONICS, int(_TOP_HZ / hz))
    width = int(SAMPLE_RATE_HZ * max(0.05, 3.2 / played_hz))
    window = np.hanning(width)
    window /= window.sum()
    time = np.arange(width) / SAMPLE_RATE_HZ
    probes = np.exp(-2j * np.pi * played_hz * np.arange(1, n_harmonics + 1)[:, None] * time) * window
    padded = np.pad(wave, (width // 2, width))
    hop = round(STEP_S * SAMPLE_RATE_HZ)
    rows = [2 * np.abs(probes @ padded[at : at + width]) for at in range(0, round(_SECONDS * SAMPLE_RATE_HZ), hop)]
    return np.array(rows, np.float32)


def _drum(font: symusic.core.Synthesizer, name: str) -> NDArray[np.float32]:
    """Return a drum from its onset, without what is above 10 kHz, faded out at its last frame's end."""
    note, level = _DRUM_NOTES[name]
    n = DRUMS[name][1] * FRAME_SAMPLES
    wave = _play(font, None, note, 1.0)
    spectrum = np.fft.rfft(wave)
    spectrum[np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE_HZ) > _DRUM_TOP_HZ] = 0
    wave = np.fft.irfft(spectrum, len(wave))
    onset = max(int(np.argmax(np.abs(wave) > 0.02 * np.abs(wave).max())) - 24, 0)
    wave = wave[onset : onset + n] * level / np.sqrt(np.mean(wave[onset : onset + FRAME_SAMPLES] ** 2))
    wave[-960:] *= np.linspace(1, 0, 960)
    return np.pad(wave, (0, DRUM_FADE_SAMPLES)).astype(np.float32)
