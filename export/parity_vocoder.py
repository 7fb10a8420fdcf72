"""Compares the vocoder's and the style encoder's graphs with their PyTorch modules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from heartvoice.checkpoints.bigvgan import LOG_MEL_MEAN, LOG_MEL_STD
from heartvoice.config.presets import CampplusConfig, Preset
from heartvoice.export.parity import Parity
from heartvoice.export.parity_speaker import compare_speaker
from heartvoice.keyed_random import normal
from heartvoice.models.bigvgan import Bigvgan
from heartvoice.models.campplus import HEAD_STRIDE, Campplus, ContextGate
from heartvoice.runtime.engines import Engine

_BATCH_LENGTHS = ((1, 1), (2, 7), (1, 24))


@torch.inference_mode()
def compare_vocoder(engine: Engine, network: torch.nn.Module, preset: Preset, parity: Parity) -> None:
    """Compare samples for noise as loud as log-mel frames of music."""
    del preset  # the module determines the number of bands
    assert isinstance(network, Bigvgan)
    for index, (batch, length) in enumerate(_BATCH_LENGTHS):
        mel = normal(0, "parity mel", index, (batch, network.conv_pre.in_channels, length))
        mel = mel * np.float32(LOG_MEL_STD) + np.float32(LOG_MEL_MEAN)
        want = network(torch.from_numpy(mel)).numpy()
        parity.add("audio", engine.run({"mel": mel})["audio"], want)


def compare_style(engine: Engine, network: torch.nn.Module, preset: Preset, parity: Parity) -> None:
    """Compare styles of noise at the scale of filter bank frames, as `compare_speaker` does."""
    assert isinstance(network, Campplus)
    gate = next(module for module in network.modules() if isinstance(module, ContextGate))
    n_bands = network.xvector.tdnn.linear.in_channels * HEAD_STRIDE // network.head.conv1.out_channels
    sizes = CampplusConfig(n_bands=n_bands, segment_frames=gate.segment_frames)
    compare_speaker(engine, network, replace(preset, speaker=sizes), parity)
