"""Kokoro's voices: phonemes in, 24 kHz speech out."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from train.voices import packages

RATE_HZ = 24_000
DURATION_S = 0.025
VOWELS = frozenset("AIOQWYaeiouæɐɑɒɔəɛɜɪʊʌᵊᵻ")
"""Letters that are a syllable's nucleus; capitals are diphthongs."""
_SIGNS = frozenset("ˈˌː,.!? ")


_DURATIONS = "/encoder/Clip_output_0"
"""The model's own durations: one for each token, in steps of `DURATION_S`."""


@lru_cache(maxsize=2)
def _session(timed: bool = False) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the same samples at any load
    model = packages.kokoro_model()
    if timed:
        graph = onnx.load_from_string(model)
        graph.graph.output.append(onnx.ValueInfoProto(name=_DURATIONS))
        model = graph.SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


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
    audio: NDArray[np.float32] = _session().run(["audio"], _inputs(phonemes, voice, speed))[0].reshape(-1)
    return audio


def speak_timed(phonemes: str, voice: str, speed: float = 1.0) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Speak a line and say when each letter begins; arguments and errors are those of `speak`.

    Returns:
        Float32 [N] at 24 kHz, and seconds [len(phonemes) + 1]: the beginning of each letter, and the end of the last.
    """
    audio, durations = _session(True).run(["audio", _DURATIONS], _inputs(phonemes, voice, speed))
    ends = DURATION_S * np.cumsum(durations.reshape(-1), dtype=np.float64)
    return audio.reshape(-1), ends[:-1]


def _inputs(phonemes: str, voice: str, speed: float) -> dict[str, NDArray[np.generic]]:
    known = packages.vocabulary()
    if unknown := sorted(set(phonemes) - set(known)):
        raise ValueError(f"phonemes: {' '.join(unknown)} are not letters of Kokoro's alphabet")
    tokens = [known[letter] for letter in phonemes]
    return {
        "tokens": np.array([[0, *tokens, 0]], np.int64),
        "style": packages.voice_styles(voice)[[len(tokens)]],
        "speed": np.array([speed], np.float32),
    }


def syllable_places(phonemes: str) -> list[float]:
    """Return the place of each syllable's vowel in a line, in phonemes from its beginning."""
    sounds = [letter for letter in phonemes if letter not in _SIGNS]
    return [index + 0.5 for index, letter in enumerate(sounds) if letter in VOWELS]


def sound_count(phonemes: str) -> int:
    """Return the number of phonemes without stress marks and punctuation."""
    return sum(letter not in _SIGNS for letter in phonemes)
