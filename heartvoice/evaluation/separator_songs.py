"""Songs with known stems, and what a separator's stems are worth against them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.dsp import resample
from heartvoice.config.presets import SEPARATORS
from heartvoice.contracts.constants import STEM_RATE_HZ
from heartvoice.errors import InvalidRequestError
from heartvoice.evaluation.cases import OUTPUT, SUFFIXES, read_sound, visible_files
from heartvoice.evaluation.measures import loudness_lufs, si_sdr_db
from heartvoice.runtime.repository import INDEX

Samples = NDArray[np.float32]

MIX, VOCALS, INSTRUMENTAL = "mix", "vocals", "instrumental"
STEMS = tuple(dict.fromkeys((VOCALS, INSTRUMENTAL, *(name for each in SEPARATORS.values() for name in each.sources))))
"""Names of true stems."""
SAME_LENGTH_S = 0.1
"""Largest difference in length of a mix and its stem; the stem is cut or filled with silence."""
SILENT_DBFS = -60.0
"""A true stem is silent where no sample of a block and its neighbours is above this."""
BLOCK_S = 0.1
MIN_SILENT_S = 1.0
"""Shorter silence has no loudness."""
_KNOWN = ", ".join(f"{name}.*" for name in (MIX, *STEMS))


@dataclass(frozen=True)
class Song:
    """Files of one song, by part; a mix is among them."""

    name: str
    files: dict[str, Path]


@dataclass(frozen=True, eq=False)
class Truth:
    """A song's samples at 44.1 kHz."""

    mix: Samples
    """float32 [2, N]."""
    stems: dict[str, Samples]
    """float32 [2, N] each."""


@dataclass(frozen=True)
class Score:
    """SI-SDR of a stem against the truth, and of the mix: what no separation would get. None for silence."""

    stem_db: float | None
    mix_db: float | None


@dataclass(frozen=True)
class Bleed:
    """How loud a stem and the mix are where the true stem is silent. None is below the meter's gate, -70 LUFS."""

    seconds: float
    stem_lufs: float | None
    mix_lufs: float | None


def find_songs(folder: Path) -> list[Song]:
    """Find the song in a folder, or the songs in its sub-folders, sorted by name.

    Raises:
        InvalidRequestError: no song is there, or a file is missing, unknown or duplicated; the message names it.
    """
    if not folder.is_dir():
        raise InvalidRequestError(f"{folder}: expected a folder, got {'a file' if folder.exists() else 'nothing'}")
    if visible_files(folder):
        return [_song(folder)]
    below = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    songs = [path for path in below if path.name != OUTPUT and not (path / INDEX).exists() and visible_files(path)]
    if not songs:
        raise InvalidRequestError(f"{folder}: expected a song or folders of songs, got none; files of a song: {_KNOWN}")
    return [_song(path) for path in songs]


def _song(folder: Path) -> Song:
    files: dict[str, Path] = {}
    for path in visible_files(folder):
        if path.stem not in (MIX, *STEMS):
            raise InvalidRequestError(f"{path}: unknown, expected one of {_KNOWN}")
        if path.suffix.lower() not in SUFFIXES:
            raise InvalidRequestError(f"{path}: expected a name ending in {', '.join(SUFFIXES)}")
        if path.stem in files:
            raise InvalidRequestError(f"{path}: ambiguous, {files[path.stem].name} is there too; keep one of them")
        files[path.stem] = path
    if MIX not in files:
        raise InvalidRequestError(f"{folder}: missing {MIX}.*, the recording to be separated")
    return Song(folder.resolve().name, files)


def read_song(song: Song) -> Truth:
    """Decode a song. Without an instrumental it is what the vocals leave of the mix.

    Raises:
        InvalidRequestError: a file is no sound, too long, or not as long as the mix; the message names it.
    """
    mix = _read(song.files[MIX])
    stems = {part: _fitted(_read(path), mix, path) for part, path in song.files.items() if part != MIX}
    if VOCALS in stems and INSTRUMENTAL not in stems:
        stems[INSTRUMENTAL] = mix - stems[VOCALS]
    return Truth(mix, stems)


def _read(path: Path) -> Samples:
    recording = read_sound(path)
    return resample(recording.stereo(), recording.sample_rate_hz, STEM_RATE_HZ)


def _fitted(stem: Samples, mix: Samples, path: Path) -> Samples:
    missing = mix.shape[1] - stem.shape[1]
    if abs(missing) > SAME_LENGTH_S * STEM_RATE_HZ:
        lengths = [samples.shape[1] / STEM_RATE_HZ for samples in (mix, stem)]
        raise InvalidRequestError(f"{path}: expected the mix's length, {lengths[0]:.2f} s, got {lengths[1]:.2f} s")
    return np.pad(stem, ((0, 0), (0, max(missing, 0))))[:, : mix.shape[1]]


def with_instrumental(found: Mapping[str, Samples], mix: Samples) -> dict[str, Samples]:
    """Return a separator's stems; one that finds vocals has an instrumental, too: what they leave of the mix."""
    stems = dict(found)
    if VOCALS in stems and INSTRUMENTAL not in stems:
        stems[INSTRUMENTAL] = mix - stems[VOCALS]
    return stems


def scores(found: Mapping[str, Samples], truth: Truth) -> dict[str, Score]:
    """Compute SI-SDR of every stem whose truth is known."""
    return {
        name: Score(si_sdr_db(found[name], true), si_sdr_db(truth.mix, true))
        for name, true in truth.stems.items()
        if name in found
    }


def bleeding(found: Mapping[str, Samples], truth: Truth) -> dict[str, Bleed]:
    """Measure every stem where its truth is silent, if that is for `MIN_SILENT_S` or more."""
    measured = {}
    for name, true in truth.stems.items():
        silent = _silent(true)
        seconds = float(silent.sum()) / STEM_RATE_HZ
        if name in found and seconds >= MIN_SILENT_S:
            levels = (loudness_lufs(samples[:, silent], STEM_RATE_HZ) for samples in (found[name], truth.mix))
            measured[name] = Bleed(seconds, *levels)
    return measured


def _silent(true: Samples) -> NDArray[np.bool_]:
    """True for the samples [N] of silent blocks."""
    block = round(BLOCK_S * STEM_RATE_HZ)
    n_samples = true.shape[1]
    padded = np.pad(np.abs(true).max(axis=0), (0, -n_samples % block))
    loud = padded.reshape(-1, block).max(axis=1) > 10.0 ** (SILENT_DBFS / 20.0)
    near = loud.copy()
    near[1:] |= loud[:-1]
    near[:-1] |= loud[1:]
    return np.repeat(~near, block)[:n_samples]
