"""Fake voice stages that know the vocals, for tests of covers and songs with a voice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from heartvoice.config.presets import htdemucs_of
from heartvoice.contracts.constants import SPEECH_RATE_HZ, STEM_RATE_HZ
from heartvoice.stages.separation.plan import SeparationPlan
from heartvoice.stages.separation.request import SeparationRequest
from heartvoice.stages.svc.request import ConversionRequest, ConvertedChunk
from tests.fakes.networks import text
from tests.support import music

SIZES = htdemucs_of("tiny")
PLAN = SeparationPlan(SIZES)
LIVE = {"live": np.array([True])}


def voice_inputs() -> dict[str, np.ndarray]:
    return {
        "voice_audio": music.singer(6.0, STEM_RATE_HZ, seed=3)[None],
        "voice_sample_rate": np.array([STEM_RATE_HZ]),
        "voice_consent": text("me, here"),
    }


class Oracle:
    """Fake `VoiceStages`: returns the known vocals as separated, and converts by returning its input."""

    def __init__(self, vocals: np.ndarray) -> None:
        self.vocals = vocals
        self.n_separated = self.n_converted = self.at = 0
        self.windows: list[ConversionRequest] = []

    def separate(self, request: SeparationRequest) -> tuple[np.ndarray, np.ndarray | None]:
        self.n_separated += 1
        n_final = SIZES.stride_samples if request.more else self.vocals.shape[1] - self.at
        stems = self.vocals[None, :, self.at : self.at + n_final]
        self.at += n_final
        return stems, np.zeros((1, 2, 7), np.float32) if request.more else None

    def convert(self, request: ConversionRequest) -> Iterator[ConvertedChunk]:
        self.n_converted += 1
        self.windows.append(request)
        state = np.array([self.n_converted], np.float32) if request.more else None
        n = len(request.vocals) // 2
        yield ConvertedChunk(request.vocals[:n])
        yield ConvertedChunk(request.vocals[n:], state, {"engine": "identity"})

    def embed(self, audio: np.ndarray) -> np.ndarray:
        vector = np.array([1.0, float(np.sqrt(np.mean(audio**2))), 0.5], np.float32)
        return vector / np.linalg.norm(vector)

    def embed_style(self, audio: np.ndarray) -> np.ndarray:
        return self.embed(audio)

    def track_f0(self, audio: np.ndarray) -> np.ndarray:
        return np.full(len(audio) // (SPEECH_RATE_HZ // 100) + 1, 220.0, np.float32)
