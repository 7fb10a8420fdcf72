"""Fake judges without weights, and cases on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from heartvoice.arrays import Array
from heartvoice.config.presets import SpeakerConfig, SwiftF0Config
from heartvoice.evaluation.dnsmos import WINDOW, Dnsmos
from heartvoice.evaluation.judges import Judges, OneNetwork
from heartvoice.stages.f0 import F0Stage
from heartvoice.stages.speaker import SpeakerStage
from tests.support import music

RATE_HZ = 16_000


def tone(hz: float, seconds: float = 2.0, level: float = 0.1, rate_hz: int = RATE_HZ) -> np.ndarray:
    """Make a tone, float32 [1, N]."""
    phase = 2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz
    samples: np.ndarray = (level * np.sin(phase)).astype(np.float32)[None]
    return samples


class MeanBands:
    """Fake speaker network: the vector is the mean of the bands, so equal tones have equal vectors."""

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        return {"embedding": np.sqrt(inputs["features"].astype(np.float32)).mean(axis=1)}


class Crossings:
    """Fake F0 network: counts zero crossings around each frame; voiced wherever there is sound."""

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        audio = np.asarray(inputs["features"], np.float32)[0, 0]
        rising = np.flatnonzero((audio[:-1] < 0) & (audio[1:] >= 0))
        hz = RATE_HZ * (len(rising) - 1) / (rising[-1] - rising[0]) if len(rising) > 1 else 0.0
        n_frames = max(1, len(audio) // SwiftF0Config().hop)
        return {"activations": np.tile(np.array([hz, 1.0], np.float32), (1, n_frames, 1))}


class Scores:
    """Fake DNSMOS network with the same scores for every window."""

    def __init__(self) -> None:
        self.windows: list[np.ndarray] = []

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        audio = np.asarray(inputs["input_1"], np.float32)
        assert audio.shape == (1, WINDOW)
        self.windows.append(audio[0].copy())
        return {"Identity:0": np.array([[3.0, 3.0, 3.0]], np.float32)}


def judges(**unavailable: str) -> Judges:
    sizes = SpeakerConfig()
    return Judges(
        {"resemblyzer": SpeakerStage(OneNetwork(MeanBands()), sizes)},
        F0Stage(OneNetwork(Crossings()), SwiftF0Config()),
        Dnsmos(Scores()),
        unavailable,
    )


def write_case(folder: Path, report: object = None, **sounds: np.ndarray) -> Path:
    """Write a folder of float WAV files at 16 kHz."""
    folder.mkdir(parents=True, exist_ok=True)
    for role, audio in sounds.items():
        (folder / f"{role}.wav").write_bytes(music.encode(audio, RATE_HZ, "WAV", "FLOAT"))
    if report is not None:
        (folder / "report.json").write_text(json.dumps(report))
    return folder
