"""Compares the speaker network's graph with its PyTorch module at several lengths and batch sizes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from heartvoice.config.presets import AnySpeaker, CampplusConfig, EcapaConfig, Preset, SpeakerConfig, WavlmConfig
from heartvoice.export.parity import Parity
from heartvoice.keyed_random import normal
from heartvoice.runtime.engines import Engine

_PARTIALS = ((1, 160), (5, 160), (2, 37))
_UTTERANCES = ((1, 160), (2, 11), (1, 611))
"""ECAPA-TDNN: batch sizes and lengths."""
_WAVE = 32_123
"""WavLM: samples of the longest wave."""
_BANK_DB = 10.0
"""Deviation of ECAPA's features."""
_SEGMENTS = ((1.5, 1), (2.0, 2), (2.54, 1), (7.01, 1))
"""CAMPPlus: lengths in segments, with and without a partial segment, and batch sizes."""


@torch.inference_mode()
def compare_speaker(engine: Engine, network: torch.nn.Module, preset: Preset, parity: Parity) -> None:
    """Compare embeddings of noise with the scale of the features."""
    sizes = preset.speaker
    for index, (batch, length) in enumerate(_cases(sizes)):
        features = speaker_noise(sizes, batch, length, index)
        want = network(torch.from_numpy(features))
        parity.add("embedding", engine.run({"features": features})["embedding"], want.numpy())


def speaker_noise(sizes: AnySpeaker, batch: int, length: int, seed: int) -> npt.NDArray[np.float32]:
    """Noise with the scale of an engine's features, float32 [batch, length, bands]: mel power, log bands or samples."""
    noise = normal(0, "parity speaker", seed, (batch, length, sizes.n_bands))
    match sizes:
        case SpeakerConfig():
            return np.square(noise)
        case CampplusConfig():
            return 2 * noise
        case EcapaConfig():
            return np.float32(_BANK_DB) * noise
        case WavlmConfig():
            return noise


def _cases(sizes: AnySpeaker) -> list[tuple[int, int]]:
    """Batch sizes and lengths to compare."""
    match sizes:
        case SpeakerConfig():
            return list(_PARTIALS)
        case CampplusConfig():
            step = 2 * sizes.segment_frames  # the network halves the frame rate before its segments
            return [(batch, round(segments * step)) for segments, batch in _SEGMENTS] + [(1, 3)]
        case EcapaConfig():
            return list(_UTTERANCES)
        case WavlmConfig():
            return [(1, sizes.least_samples), (2, 2 * sizes.least_samples + 123), (1, _WAVE)]
