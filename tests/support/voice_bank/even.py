"""The bank's lines sung without its rhythm: every sound 1.5 times as long as spoken, a note for each syllable.

So the songs of real_parts.md are made, on which its lyric errors were measured. The bank's own songs put vowels on the
beat and hurry consonants, which is harder to understand.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyworld

from tests.support import music
from tests.support.voice_bank import band, singing, songs
from tests.support.voice_bank.lines import lines_of
from train.voices import kokoro

STRETCH = 1.5


def even_song(name: str, voice: str | None = None, seconds: float = songs.SONG_S) -> songs.BankSong:
    """Sing a song of the bank evenly, over its own band at 0 dB; equal calls give equal samples.

    Args:
        name: in `SONGS`.
        voice: one of Kokoro's; the song's own if it is None.
        seconds: length; the lines that end before it are sung.
    """
    plan = replace(songs.SONGS[name], voice=voice or songs.SONGS[name].voice)
    eighth_s, rng = plan.style.eighth_s, np.random.default_rng(plan.seed)
    start, placed = 2 * band.BEATS, list[songs._Placed]()
    for line in lines_of(name):
        places, n_sounds = kokoro.syllable_places(line.phonemes), kokoro.sound_count(line.phonemes)
        spoken = singing.analyse(kokoro.speak(line.phonemes, plan.voice), kokoro.RATE_HZ, places, n_sounds)
        lengths = np.rint(STRETCH * np.diff(spoken.onsets)).astype(int)  # in frames
        eighths = np.maximum(1, np.rint(lengths * singing.FRAME_S / eighth_s).astype(int)).tolist()
        notes = songs.write_melody(plan, eighths, start, rng)
        each = songs._Placed(line, _sing(spoken, lengths.tolist(), notes, rng), start * eighth_s)
        if each.end_s > seconds:
            break
        placed.append(each)
        n_eighths = int((each.end_s - each.at_s) / eighth_s) + 2  # a breath, and on to a half bar
        start += -(-n_eighths // band.BEATS) * band.BEATS
    dry, f0 = songs._one_track(placed, seconds)
    vocals = music.room(dry, songs.RATE_HZ, plan.seed, wet=songs._WET).astype(np.float64)
    backing = band.play(plan.style, seconds).astype(np.float64)
    vocals *= np.sqrt(np.mean(backing**2) / np.mean(vocals**2))
    gain = 10 ** ((songs.PEAK_DBTP - music.true_peak_dbtp(vocals + backing)) / 20)
    lines = tuple(songs.BankLine(each.line.words, each.at_s, each.end_s) for each in placed)
    sung, played = (np.asarray(gain * stem, np.float32) for stem in (vocals, backing))
    return songs.BankSong(name, plan.voice, lines, sung, played, f0, plan.style)


def _sing(spoken: singing.Analysis, lengths: list[int], notes: list[int], rng: np.random.Generator) -> singing.SungLine:
    """Sing a line; `lengths` of its notes are in frames."""
    at = np.arange(int(STRETCH * len(spoken.f0_hz))) / STRETCH
    nearest = np.minimum(np.rint(at).astype(int), len(spoken.f0_hz) - 1)
    lead_s = STRETCH * int(spoken.onsets[0]) * singing.FRAME_S
    pitch = singing._melody(len(at), lead_s, lengths, notes, singing.FRAME_S, rng)
    f0 = np.where(spoken.f0_hz[nearest] > 0, pitch, 0.0)
    envelope = np.exp(singing._rows(np.log(spoken.envelope), at))
    aperiodicity = singing._rows(spoken.aperiodicity, at)
    audio = pyworld.synthesize(f0, envelope, aperiodicity, kokoro.RATE_HZ, 1000 * singing.FRAME_S)
    return singing.SungLine(audio.astype(np.float32), f0, 0.0)
