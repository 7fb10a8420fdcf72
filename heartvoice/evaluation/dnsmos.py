"""DNSMOS P.835: predicted listener ratings of speech, background and overall quality.

The network is the one in the wheel `speechmos`, with that package's windows and polynomials. The package itself is not
imported: it needs librosa and requests, which it does not declare, for an unused second network (P.808). It also loses
windows to rounding, often the last one and those that begin 7 to 23 s in. All windows are used here.

The network was trained on noisy speech. For singing it distinguishes damaged from clean voices, not good from bad
singers.

Source: C. K. A. Reddy, V. Gopal, R. Cutler, "DNSMOS P.835: A Non-Intrusive Perceptual Objective Speech Quality Metric
to Evaluate Noise Suppressors", 2022; speechmos 0.0.1.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartvoice.contracts.constants import SPEECH_RATE_HZ
from heartvoice.runtime.engines import Engine

WINDOW = 144_160
"""Samples at 16 kHz per call, 9.01 s."""
STEP = SPEECH_RATE_HZ
MAX_WINDOWS = 30
"""Limit of windows per recording, evenly spaced: a window takes 0.3 s of two cores."""
_POLYNOMIALS = (
    (-0.08397278, 1.22083953, 0.0052439),
    (-0.13166888, 1.60915514, -0.39604546),
    (-0.06766283, 1.11546468, 0.04602535),
)
"""Map the network's values to ratings: signal, background, overall; highest power first."""


@dataclass(frozen=True)
class Opinion:
    """Mean opinion scores, from about 1 (bad) to 5 (excellent)."""

    signal: float
    background: float
    overall: float


class Dnsmos:
    """Applies the network to windows of a recording."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def rate(self, audio: NDArray[np.float32]) -> Opinion:
        """Rate float32 [N], mono at 16 kHz, N >= 1: the mean over windows that begin every second.

        A recording shorter than a window, 9.01 s, is repeated. A recording above full scale is attenuated to it.
        """
        audio = audio / np.float32(max(1.0, float(np.abs(audio).max())))
        while len(audio) < WINDOW:
            audio = np.concatenate([audio, audio])
        starts = range(0, len(audio) - WINDOW + 1, STEP)
        spread = np.linspace(0, len(starts) - 1, min(len(starts), MAX_WINDOWS)).round().astype(int)
        scores = []
        for start in (starts[index] for index in spread):
            raw = self._engine.run({"input_1": audio[None, start : start + WINDOW]})["Identity:0"][0]
            scores.append([np.polyval(terms, value) for terms, value in zip(_POLYNOMIALS, raw, strict=True)])
        return Opinion(*(float(score) for score in np.mean(scores, axis=0)))
