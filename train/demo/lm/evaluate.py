"""Has the language model write songs for held-out lyrics, and reads their codes back."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from heartvoice import keyed_random
from heartvoice.checkpoints.safetensors_reader import Checkpoint
from heartvoice.config.presets import DEMO_IDS, HeartMuLaConfig
from heartvoice.models.generate import generate
from heartvoice.models.heartmula import HeartMuLa
from heartvoice.models.load import load_module
from train.demo import layout, reading
from train.demo.compose import compose
from train.demo.grammar import HELD_OUT_SEED, is_held_out, write_lyrics
from train.demo.lm.task import FOLDER
from train.demo.prompt import prompt_of
from train.demo.score import CHOICES, Codes, Score
from train.demo.songs import held_out_song

BARS: Mapping[str, float] = {"word_error": 0.05, "tags": 0.95, "consistent": 0.98}
MOST = 1.5
"""Longest song, as a multiple of the world's own for the same lyrics."""


@dataclass(frozen=True)
class Sampling:
    """How codes are drawn."""

    seed: int = 0
    temperature: float = 0.7
    top_k: int = 20
    cfg_scale: float = 1.0


@dataclass(frozen=True)
class Judged:
    """What one song has of what was asked for."""

    word_errors: int
    """Words inserted, left out or replaced."""
    n_words: int
    tags: Mapping[str, bool]
    """By kind."""
    consistency: Mapping[str, float]
    """Shares of `reading.Consistency`."""
    ended: bool
    sung: str


def load(folder: Path) -> HeartMuLa:
    """Open the weights that the training has written.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    source = Checkpoint.open(folder / FOLDER)
    network = HeartMuLa(HeartMuLaConfig.from_config(source.config))
    load_module(network, source)
    return network.eval()


def evaluate(network: HeartMuLa, sampling: Sampling, *, songs: int = 50, lines: int = 4) -> dict[str, Any]:
    """Judge songs for held-out lyrics; one lyrics in four repeats a word.

    Args:
        network: in evaluation mode.
        sampling: how it writes.
        songs: number of lyrics.
        lines: of each lyrics.

    Returns:
        Shares by name, errors by song, whether all of `BARS` are met, as JSON values.
    """
    judged = []
    for number in range(songs):
        judged.append(_judge_one(network, sampling, number, lines))
        print(f"\r{number + 1}/{songs} songs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {"songs": songs, "lines": lines, "sampling": asdict(sampling), **summary(judged)}


def _judge_one(network: HeartMuLa, sampling: Sampling, number: int, lines: int) -> Judged:
    song = held_out_song(number)
    if lines != 4:
        lyrics = write_lyrics(HELD_OUT_SEED + number, lines, repeats=number % 4 == 3, keep=is_held_out)
        song = compose(song.tags, lyrics.text, HELD_OUT_SEED + number)
    limit = int(MOST * song.codes.shape[1])
    codes = write_song(network, song.tags.text, song.lyrics, sampling, limit)
    return judge(codes, song, ended=codes.shape[1] < limit)


def write_song(network: HeartMuLa, tags: str, lyrics: str, sampling: Sampling, max_frames: int) -> Codes:
    """Have the network write a song, as the server does: int64 [8, T]."""
    prompt = prompt_of(tags, lyrics)
    codes = generate(
        network, prompt.text_ids, max_frames=max_frames, eos_id=DEMO_IDS.audio_eos_id,
        uniform=lambda frame: keyed_random.uniform(sampling.seed, "lm", frame, (layout.N_BOOKS,)),
        style=np.zeros(network.sizes.muq_dim, np.float32), style_index=prompt.style_index,
        cfg_scale=sampling.cfg_scale, temperature=sampling.temperature, top_k=sampling.top_k,
    )  # fmt: skip
    return codes.numpy().astype(np.int64)


def judge(codes: Codes, song: Score, *, ended: bool) -> Judged:
    """Compare a song's codes with what was asked for.

    Args:
        codes: int64 [8, T].
        song: the world's own for the same tags and lyrics. Where it has voice, lead or bass and the codes have none,
            nothing of that is consistent.
        ended: whether the model ended the song itself.
    """
    read = reading.read(codes)
    shares = asdict(read.consistency)
    parts = {"melody": _voice, "lead": _lead, "bass": _bass}
    silent = [name for name, sounds in parts.items() if sounds(song.codes) and not sounds(codes)]
    return Judged(
        word_errors=Levenshtein.distance(list(song.words), list(read.words)),
        n_words=len(song.words),
        tags={kind: getattr(song.tags, kind) == getattr(read.tags, kind) for kind in CHOICES},
        consistency=shares | dict.fromkeys(silent, 0.0),
        ended=ended,
        sung=" ".join(read.words),
    )


def _voice(codes: Codes) -> bool:
    return bool(codes[layout.NOTE].any())


def _lead(codes: Codes) -> bool:
    return bool(codes[layout.LEAD].any())


def _bass(codes: Codes) -> bool:
    return any(layout.read_low(int(code)).bass >= 0 for code in codes[layout.LOW])


def summary(judged: Sequence[Judged]) -> dict[str, Any]:
    """Return shares over all songs, and whether they meet `BARS`.

    `consistent` is the mean of chords in the key, bass on its chord's root, and beats' notes and lead notes of their
    chords.
    """
    kinds = {kind: float(np.mean([song.tags[kind] for song in judged])) for kind in CHOICES}
    shares = {
        name: float(np.mean([song.consistency[name] for song in judged])) for name in judged[0].consistency
    }  # fmt: skip
    found = {
        "word_error": sum(song.word_errors for song in judged) / sum(song.n_words for song in judged),
        "tags": float(np.mean(list(kinds.values()))),
        "consistent": float(np.mean([shares[name] for name in ("chord", "bass", "melody", "lead")])),
    }
    met = {"word_error": found["word_error"] <= BARS["word_error"]}
    met |= {name: found[name] >= BARS[name] for name in ("tags", "consistent")}
    rounded = {name: round(value, 4) for name, value in found.items()}
    return {
        **rounded, "ended": float(np.mean([song.ended for song in judged])),
        "word_for_word": float(np.mean([song.word_errors == 0 for song in judged])),
        "by_tag": _rounded(kinds), "by_rule": _rounded(shares), "met": met, "passed": all(met.values()),
        "word_errors": [song.word_errors for song in judged], "sung": [song.sung for song in judged],
    }  # fmt: skip


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}
