"""Make a short recording for a cover: drums, bass, chords, and a synthetic singer.

    python examples/make_recording.py recording.wav [--seconds 20]

The singer is not the one of `make_voice.py`. Equal arguments give equal files: 48 kHz, stereo, 24 bits, peaks at
-4 dBFS.
"""

from __future__ import annotations

import argparse

import numpy as np
import soundfile
from scipy.signal import butter, fftconvolve, sosfilt
from singer import BEAT_S, RATE_HZ, SINGERS, Note, Wave, phrase, sing

PEAK = 0.63
SINGER = SINGERS[1]
"""A singer whose tonic is C, to match the chords."""
CHORDS = ((48, 52, 55), (43, 47, 50), (45, 48, 52), (41, 45, 48))
"""C, G, A minor and F as MIDI notes, one bar each."""
BEATS_PER_BAR = 4
TUNE: tuple[Note, ...] = (
    *phrase((4, 1), (7, 1), (12, 1.5), (11, 0.5), (11, 2), (7, 1), (None, 1), vowels="aoie"),
    *phrase((9, 1), (9, 1), (7, 1), (4, 1), (5, 3), (None, 1), vowels="ieao"),
    *phrase((4, 1), (4, 1), (7, 1), (12, 1), (14, 2), (11, 1), (None, 1), vowels="uaeo"),
    *phrase((12, 1.5), (9, 0.5), (9, 1), (7, 1), (5, 3), (None, 1), vowels="oaie"),
)
"""A melody over two rounds of the chords."""


def record(seconds: float) -> Wave:
    """Mix singer and band: float64 [2, N] at 48 kHz."""
    mix = band(seconds) + in_room(sing(SINGER, TUNE, seconds))
    return np.asarray(PEAK * mix / np.abs(mix).max())


def in_room(voice: Wave) -> Wave:
    """Add the echoes of a small room to a voice [N], different on each side: [2, N]."""
    time = np.arange(RATE_HZ // 3) / RATE_HZ
    echoes = np.random.default_rng(5).standard_normal((2, len(time))) * np.exp(-time / 0.07) * (time > 0.01)
    echoes *= 0.15 / np.linalg.norm(echoes, axis=1, keepdims=True)
    return voice + np.stack([fftconvolve(voice, echo)[: len(voice)] for echo in echoes])


def band(seconds: float) -> Wave:
    """Play drums, bass and chords: float64 [2, N]."""
    rng = np.random.default_rng(6)
    n, beat = round(seconds * RATE_HZ), round(BEAT_S * RATE_HZ)
    time = np.arange(beat) / RATE_HZ
    kick = np.sin(2 * np.pi * (48 * time + 5 * (1 - np.exp(-time / 0.03)))) * np.exp(-time / 0.12)
    snare = (np.sin(2 * np.pi * 190 * time) + 0.7 * rng.standard_normal(beat)) * np.exp(-time / 0.07)
    hiss = sosfilt(butter(2, 7000, "highpass", fs=RATE_HZ, output="sos"), rng.standard_normal(beat // 2))
    hat = np.tile(hiss * np.exp(-time[: beat // 2] / 0.025), 2)  # eighth notes
    mix = np.zeros((2, n + beat))
    for index, at in enumerate(range(0, n, beat)):
        chord = CHORDS[index // BEATS_PER_BAR % len(CHORDS)]
        beat_of_all = (
            panned(0.5 * kick if index % 2 == 0 else 0.2 * snare, 0.0)
            + panned(0.04 * hat, 0.4)
            + panned(0.25 * tone(chord[0] - 12, time, decay_s=0.4), 0.0)
        )
        for note, place in zip(chord, (-0.6, 0.1, 0.7), strict=True):
            beat_of_all += panned(0.09 * tone(note + 12, time, decay_s=0.6), place)
        mix[:, at : at + beat] += beat_of_all
    return mix[:, :n]


def tone(note: int, time: Wave, decay_s: float) -> Wave:
    """Play a struck string: overtones of a MIDI note, of which the higher ones decay faster."""
    hz = 440.0 * 2.0 ** ((note - 69) / 12)
    fade = np.minimum(1.0, np.minimum(time / 0.004, (time[-1] - time) / 0.01))
    overtones = (np.sin(2 * np.pi * k * hz * time) / k**1.3 * np.exp(-k * time / decay_s / 2) for k in range(1, 9))
    return np.asarray(fade * sum(overtones))


def panned(track: Wave, place: float) -> Wave:
    """Pan [N] to [2, N] with equal power; place -1 is left, 1 right."""
    angle = (place + 1) * np.pi / 4
    return np.stack([np.cos(angle) * track, np.sin(angle) * track])


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", help="WAV or FLAC file")
    parser.add_argument("--seconds", type=float, default=20.0, help="length in seconds, 1 to 600")
    options = parser.parse_args(arguments)
    if not 1 <= options.seconds <= 600:
        parser.error(f"--seconds: expected 1 to 600, got {options.seconds:g}")
    soundfile.write(options.output, record(options.seconds).T, RATE_HZ, subtype="PCM_24")
    print(f"{options.output}: {options.seconds:g} s of a synthetic {SINGER.name} over a band")


if __name__ == "__main__":
    main()
