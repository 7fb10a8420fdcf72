"""Compares the speaker network's graph with its PyTorch module at several lengths and batch sizes."""

from __future__ import annotations

import numpy as np
import torch

from heartvoice.config.presets import CampplusConfig, Preset
from heartvoice.export.parity import Parity
from heartvoice.keyed_random import normal
from heartvoice.runtime.engines import Engine

_PARTIALS = ((1, 160), (5, 160), (2, 37))
_SEGMENTS = ((1.5, 1), (2.0, 2), (2.54, 1), (7.01, 1))
"""CAMPPlus: lengths in segments, with and without a partial segment, and batch sizes."""


@torch.inference_mode()
def compare_speaker(engine: Engine, network: torch.nn.Module, preset: Preset, parity: Parity) -> None:
    """Compare embeddings of noise with the scale of the features: mel power, or log-mel without its mean."""
    sizes = preset.speaker
    if isinstance(sizes, CampplusConfig):
        step = 2 * sizes.segment_frames  # the network halves the frame rate before its segments
        cases = [(batch, round(segments * step)) for segments, batch in _SEGMENTS] + [(1, 3)]
    else:
        cases = list(_PARTIALS)
    for index, (batch, length) in enumerate(cases):
        noise = normal(0, "parity speaker", index, (batch, length, sizes.n_bands))
        features = 2 * noise if isinstance(sizes, CampplusConfig) else np.square(noise)
        want = network(torch.from_numpy(features))
        parity.add("embedding", engine.run({"features": features})["embedding"], want.numpy())
