"""Kokoro's voices: phonemes in, 24 kHz speech out."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tests.support.voice_bank import packages

RATE_HZ = 24_000
VOWELS = frozenset("AIOQWYaeiouæɐɑɒɔəɛɜɪʊʌᵊᵻ")
"""Letters that are a syllable's nucleus; capitals are diphthongs."""
_SIGNS = frozenset("ˈˌː,.!? ")


@lru_cache(maxsize=1)
def _session() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the same samples at any load
    return onnxruntime.InferenceSession(packages.kokoro_model(), options, providers=["CPUExecutionProvider"])


def speak(phonemes: str, voice: str, speed: float = 1.0) -> NDArray[np.float32]:
    """Speak a line: float32 [N] at 24 kHz; equal calls on one machine give equal samples.

    Args:
        phonemes: letters of Kokoro's alphabet, at most 508.
        voice: one of the 54, as `af_heart` (an American woman) or `am_puck` (an American man).
        speed: above 1 is faster.

    Raises:
        ExportError: the model cannot be fetched, or there is no such voice.
        ValueError: a letter is not Kokoro's.
    """
    known = packages.vocabulary()
    if unknown := sorted(set(phonemes) - set(known)):
        raise ValueError(f"phonemes: {' '.join(unknown)} are not letters of Kokoro's alphabet")
    tokens = [known[letter] for letter in phonemes]
    inputs = {
        "tokens": np.array([[0, *tokens, 0]], np.int64),
        "style": packages.voice_styles(voice)[[len(tokens)]],
        "speed": np.array([speed], np.float32),
    }
    audio: NDArray[np.float32] = _session().run(["audio"], inputs)[0].reshape(-1)
    return audio


def syllable_places(phonemes: str) -> list[float]:
    """Return the place of each syllable's vowel in a line, in phonemes from its beginning."""
    sounds = [letter for letter in phonemes if letter not in _SIGNS]
    return [index + 0.5 for index, letter in enumerate(sounds) if letter in VOWELS]


def sound_count(phonemes: str) -> int:
    """Return the number of phonemes without stress marks and punctuation."""
    return sum(letter not in _SIGNS for letter in phonemes)
