"""Kokoro speaks the vocabulary: each word of each singer as speech, with about when its letters begin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.demo import words
from train.voices import kokoro

WORDS_A_LIST = 12
SPEED = 0.9
SEED = 0
LEAD_S = 0.09
"""Kokoro's sounds begin this much before the times of its letters; measured on onsets after pauses."""


@dataclass(frozen=True)
class SpokenList:
    """Words spoken in a row, with a stop after each."""

    words: tuple[str, ...]
    audio: NDArray[np.float32]
    """[N] at 24 kHz."""
    starts_s: tuple[NDArray[np.float64], ...]
    """Of each word: when its letters (stress marks left out) begin, and when the last one ends, [L + 1]."""


def word_lists(seed: int = SEED) -> list[tuple[str, ...]]:
    """Return the vocabulary in lists of words, in a seeded order."""
    order = np.random.default_rng(seed).permutation(sorted(words.phonemes()))
    return [tuple(str(word) for word in order[at : at + WORDS_A_LIST]) for at in range(0, len(order), WORDS_A_LIST)]


def speak_list(listed: tuple[str, ...], voice: str) -> SpokenList:
    """Let a voice speak a list of words.

    Raises:
        ExportError: Kokoro cannot be fetched, or has no such voice.
    """
    spoken = [words.phonemes()[word] for word in listed]
    text = ". ".join(spoken) + "."
    audio, begins = kokoro.speak_timed(text, voice, SPEED)
    begins = np.maximum(begins - LEAD_S, 0.0)
    starts, at = [], 0
    for letters in spoken:
        places = [at + index for index, letter in enumerate(letters) if letter not in "ˈˌ"]
        starts.append(begins[[*places, at + len(letters)]])
        at += len(letters) + 2
    return SpokenList(listed, audio, tuple(starts))
