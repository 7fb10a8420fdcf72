"""The bank's songs: who sings which words over which band, made once and kept in the cache."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.dsp import resample
from heartvoice.contracts.constants import F0_RATE_HZ
from heartvoice.export.wheel_files import cache_folder
from tests.support import music
from tests.support.voice_bank import band, singing
from tests.support.voice_bank.band import Part, Style
from tests.support.voice_bank.lines import Line, lines_of
from train.voices import kokoro, packages

Samples = NDArray[np.float32]
Wave = NDArray[np.float64]

SONG_S = 30.0
RATE_HZ = band.RATE_HZ
PEAK_DBTP = -2.0
"""True peak of a mix."""
_WET = 0.2
_RANGE = 14
"""Semitones between a melody's lowest and highest note."""


@dataclass(frozen=True)
class SongPlan:
    """What a song is made of."""

    voice: str
    """One of Kokoro's."""
    low: int
    """MIDI note, the lowest that it sings."""
    style: Style
    seed: int


SONGS: dict[str, SongPlan] = {
    "harbour": SongPlan(
        "af_heart", 53,
        Style(92, 48, False, (0, 4, 5, 3), (
            Part(band.PIANO, "arpeggio", -3, -0.3), Part(band.STRINGS, "pad", -7, 0.4),
            Part(band.FINGERED_BASS, "bass", 0),
        ), "ballad", -2), seed=1,
    ),
    "engine": SongPlan(
        "am_michael", 48,
        Style(116, 50, False, (0, 3, 4, 0), (
            Part(band.STEEL_GUITAR, "strum", -4, -0.5), Part(band.ELECTRIC_PIANO, "off_beats", -8, 0.5),
            Part(band.PICKED_BASS, "bass", -1),
        ), "rock"), seed=2,
    ),
    "garden": SongPlan(
        "af_bella", 53,
        Style(100, 53, False, (0, 5, 3, 4), (
            Part(band.NYLON_GUITAR, "arpeggio", -1, -0.2), Part(band.ACCORDION, "pad", -9, 0.5),
            Part(band.ACOUSTIC_BASS, "walking", 0),
        ), None), seed=3,
    ),
    "thunder": SongPlan(
        "am_fenrir", 50,
        Style(124, 45, True, (0, 5, 2, 6), (
            Part(band.OVERDRIVEN_GUITAR, "power", -2, -0.6), Part(band.SYNTH_STRINGS, "pad", -5, 0.6),
            Part(band.PICKED_BASS, "bass", -1),
        ), "rock"), seed=4,
    ),
    "snow": SongPlan(
        "af_nova", 53,
        Style(84, 52, True, (0, 3, 5, 4), (
            Part(band.VIBRAPHONE, "block", -3, 0.3), Part(band.PIANO, "arpeggio", -6, -0.4),
            Part(band.ACOUSTIC_BASS, "walking", 0),
        ), "swing", -4), seed=5,
    ),
    "corner": SongPlan(
        "am_puck", 49,
        Style(108, 48, False, (0, 5, 1, 4), (
            Part(band.ORGAN, "off_beats", -7, 0.5), Part(band.ELECTRIC_PIANO, "block", -4, -0.4),
            Part(band.FINGERED_BASS, "bass", 0),
        ), "dance"), seed=6,
    ),
}  # fmt: skip
"""Six songs of 30 s; "thunder" is the hard one for separators: its guitar and strings fill the voice's band."""


@dataclass(frozen=True)
class BankLine:
    """A sung line and when it is sung."""

    words: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class BankSong:
    """A song with everything that is known of it."""

    name: str
    voice: str
    """Kokoro's name of the singer."""
    lines: tuple[BankLine, ...]
    vocals: Samples
    """[2, N] at 44.1 kHz, in a small room; its level is the band's."""
    instrumental: Samples
    """[2, N] at 44.1 kHz."""
    f0_hz: Wave
    """Pitch as it was synthesised, [N // 441 + 1] every 10 ms, 0 = unvoiced."""
    style: Style

    @property
    def lyrics(self) -> str:
        """Words of the sung lines, one line each."""
        return "\n".join(line.words for line in self.lines)

    @property
    def mix(self) -> Samples:
        """Vocals and instrumental, [2, N]; true peak -2 dBTP."""
        mixed: Samples = self.vocals + self.instrumental
        return mixed


def song(name: str, seconds: float = SONG_S) -> BankSong:
    """Return a song of the bank; equal calls give equal samples.

    Args:
        name: in `SONGS`.
        seconds: length; the lines that end before it are sung.

    Raises:
        ExportError: Kokoro, its voices or the sound font cannot be fetched.
    """
    plan = SONGS[name]
    stored = _cached(
        f"song-{name}",
        {"seconds": seconds, "lines": [each.phonemes for each in lines_of(name)]},
        lambda: _make(plan, lines_of(name), seconds),
    )
    stems = stored["stems"].T.astype(np.float32) / np.float32(32_768)
    lines = tuple(BankLine(*line) for line in json.loads(str(stored["lines"])))
    return BankSong(name, plan.voice, lines, stems[:2], stems[2:], stored["f0"], plan.style)


def spoken(name: str, index: int, voice: str | None = None) -> Samples:
    """Speak a line: float32 [N] at 24 kHz.

    Args:
        name: a song, or "reference".
        index: of its line, from 0.
        voice: one of Kokoro's 54; the song's own if it is None.
    """
    voice = voice or SONGS[name].voice
    line = lines_of(name)[index]
    stored = _cached(f"spoken-{voice}", {"line": line.phonemes}, lambda: {"audio": kokoro.speak(line.phonemes, voice)})
    audio: Samples = stored["audio"]
    return audio


# ------------------------------------------------------------------------------------------------------------ the work


@dataclass(frozen=True)
class _Placed:
    """A sung line and the time of its first sample."""

    line: Line
    sung: singing.SungLine
    at_s: float

    @property
    def end_s(self) -> float:
        return self.at_s + len(self.sung.audio) / kokoro.RATE_HZ


def _make(plan: SongPlan, lines: tuple[Line, ...], seconds: float) -> dict[str, Any]:
    """Sing and play a song: what the cache stores."""
    placed = _sing_lines(plan, lines, seconds)
    dry, f0 = _one_track(placed, seconds)
    vocals = music.room(dry, RATE_HZ, plan.seed, wet=_WET).astype(np.float64)
    backing = band.play(plan.style, seconds).astype(np.float64)
    vocals *= np.sqrt(np.mean(backing**2) / np.mean(vocals**2))
    gain = 10.0 ** ((PEAK_DBTP - music.true_peak_dbtp(vocals + backing)) / 20.0)
    stems = np.concatenate([vocals, backing]) * gain
    return {
        "stems": np.rint(stems.T * 32_768).astype(np.int16),
        "f0": f0,
        "lines": json.dumps([(each.line.words, round(each.at_s, 3), round(each.end_s, 3)) for each in placed]),
    }


def _sing_lines(plan: SongPlan, lines: tuple[Line, ...], seconds: float) -> list[_Placed]:
    """Sing line after line, each from a half bar on, as long as they end in time."""
    eighth_s, rng = plan.style.eighth_s, np.random.default_rng(plan.seed)
    start, placed = 2 * band.BEATS, list[_Placed]()
    for number, line in enumerate(lines):
        places, n_sounds = kokoro.syllable_places(line.phonemes), kokoro.sound_count(line.phonemes)
        if (start + len(places)) * eighth_s > seconds:  # an eighth a syllable is the least
            break
        analysis = singing.analyse(kokoro.speak(line.phonemes, plan.voice), kokoro.RATE_HZ, places, n_sounds)
        lengths = singing.note_lengths(analysis, eighth_s)
        notes = write_melody(plan, lengths, start, rng)
        sung = singing.sing(analysis, kokoro.RATE_HZ, lengths, notes, eighth_s, seed=100 * plan.seed + number)
        each = _Placed(line, sung, start * eighth_s - sung.lead_s)
        if each.end_s > seconds:
            break
        placed.append(each)
        start += -(-(sum(lengths) + 2) // band.BEATS) * band.BEATS  # a breath, and on to a half bar
    return placed


def write_melody(plan: SongPlan, lengths: list[int], start: int, rng: np.random.Generator) -> list[int]:
    """Write a line's notes: small steps in the key, tones of the chord on strong beats and at the end.

    Args:
        plan: the song.
        lengths: of each note in eighths.
        start: of the first note, in eighths from the song's beginning.
        rng: draws the notes.

    Returns:
        MIDI numbers.
    """
    in_key = np.array([note for note in range(plan.low, plan.low + _RANGE + 1) if _degree(plan.style, note)])
    note, notes = float(plan.low + _RANGE / 2), []
    for index, length in enumerate(lengths):
        chord = {tone % 12 for tone in plan.style.chord(start // (2 * band.BEATS))}
        in_chord = np.array([each % 12 in chord for each in in_key])
        strong = start % 4 == 0 or length > 1 or index == len(lengths) - 1
        weight = np.exp(-np.abs(in_key - note) / 2.5) * np.where(in_chord, 1.0, 0.0 if strong else 0.5)
        weight = np.where(in_key == note, 0.3 * weight, weight)
        note = int(rng.choice(in_key, p=weight / weight.sum()))
        notes.append(note)
        start += length
    return notes


def _degree(style: Style, note: int) -> bool:
    return (note - style.tonic) % 12 in {(style.scale(degree) - style.tonic) % 12 for degree in range(7)}


def _one_track(placed: list[_Placed], seconds: float) -> tuple[Samples, Wave]:
    """Put the lines on one track [N] at 44.1 kHz; with the pitch every 10 ms."""
    track = np.zeros(round(seconds * kokoro.RATE_HZ), np.float32)
    f0 = np.zeros(round(seconds * F0_RATE_HZ) + 1)
    for each in placed:
        first = round(each.at_s * kokoro.RATE_HZ)
        part = track[first : first + len(each.sung.audio)]
        part += each.sung.audio[: len(part)]
        index = np.rint((np.arange(len(f0)) / F0_RATE_HZ - first / kokoro.RATE_HZ) / singing.FRAME_S).astype(int)
        inside = (index >= 0) & (index < len(each.sung.f0_hz))
        f0[inside] = each.sung.f0_hz[index[inside]]
    return resample(track, kokoro.RATE_HZ, RATE_HZ), f0


# ----------------------------------------------------------------------------------------------------------- the cache


@lru_cache(maxsize=1)
def _code_sha256() -> str:
    """Hash of what makes the songs: code, pinned files and versions."""
    digest = hashlib.sha256()
    for code in (band, kokoro, packages, singing, sys.modules[__name__], music.room, music.true_peak_dbtp):
        digest.update(inspect.getsource(code).encode())
    for package in ("numpy", "onnxruntime", "pyworld-prebuilt", "scipy", "soxr", "symusic"):
        digest.update(f"{package} {version(package)}\n".encode())
    return digest.hexdigest()


def _cached(name: str, of: dict[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return arrays out of the cache, or make them and store them under the hash of all that they depend on."""
    key = hashlib.sha256(json.dumps([name, of, _code_sha256()], sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder() / "voice-bank" / f"{name}-{key}.npz"
    if not path.is_file():
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=".make-", delete=False) as stream:
            np.savez(stream, **made)
        Path(stream.name).replace(path)
    with np.load(path) as stored:
        return {key: stored[key] for key in stored.files}
