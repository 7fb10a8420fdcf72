"""Where in a recording somebody speaks, by silero-vad's published graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heartvoice.contracts.constants import SPEECH_RATE_HZ
from heartvoice.runtime.engines import Engine

WINDOW, BEFORE = 512, 64
"""Samples at 16 kHz of one decision, 32 ms, and of what the network hears before it."""
SPEECH_ABOVE = 0.5
"""Probability of a window in which somebody speaks."""
_STATE = 128


def speech_probabilities(engine: Engine, audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probability that somebody speaks, float32 [T], in each window of [N] at 16 kHz."""
    n_windows = max(1, -(-len(audio) // WINDOW))
    padded = np.pad(audio, (BEFORE, n_windows * WINDOW - len(audio))).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(padded, BEFORE + WINDOW)[::WINDOW]
    zeros = np.zeros((1, 1, _STATE), np.float32)
    inputs = {"input": np.ascontiguousarray(windows), "h": zeros, "c": zeros}
    return engine.run(inputs, ["speech_probs"])["speech_probs"].astype(np.float32, copy=False)


def speech_seconds(engine: Engine, audio: NDArray[np.float32]) -> float:
    """Return how long somebody speaks in [N] at 16 kHz."""
    return float(np.sum(speech_probabilities(engine, audio) > SPEECH_ABOVE)) * WINDOW / SPEECH_RATE_HZ
