"""Compares the F0 graph with RMVPE's module or with swift-f0's published file in onnxruntime."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heartvoice.checkpoints.random_f0 import LOG_MEL_MEAN, LOG_MEL_VARIANCE
from heartvoice.config.presets import AnyF0, Preset, SwiftF0Config
from heartvoice.errors import CheckpointError
from heartvoice.export.parity import Parity
from heartvoice.export.swift_f0 import AUDIO, CONFIDENCE, HIGH, LOW, PITCH, RANGE_HZ, OnnxFile
from heartvoice.keyed_random import normal
from heartvoice.models.load import TensorSource, load_network
from heartvoice.runtime.engines import Engine, OnnxEngine

_SAMPLES = ((1, 1), (2, 300), (3, 8000), (1, 40_000))
_FRAMES = ((1, 32), (2, 96), (1, 160))


class PublishedSwiftF0(nn.Module):
    """swift-f0's published file with the interface of a PyTorch module."""

    def __init__(self, source: OnnxFile, *, threads: int = 1) -> None:
        super().__init__()
        self._engine = OnnxEngine(source.path, threads=threads)

    def forward(self, audio: Tensor) -> Tensor:
        """Map float32 [B, N] at 16 kHz to Hz and confidence [B, T, 2], row by row."""
        limits = {name: np.asarray(hz, np.float32) for name, hz in zip((LOW, HIGH), RANGE_HZ, strict=True)}
        rows = []
        for row in audio.numpy():
            out = self._engine.run({AUDIO: row[None], **limits})
            rows.append(np.stack([out[PITCH][0].astype(np.float32), out[CONFIDENCE][0].astype(np.float32)], axis=1))
        return torch.from_numpy(np.stack(rows))


def f0_reference(sizes: AnyF0, source: TensorSource) -> nn.Module:
    """Return the reference of `compare_f0`.

    Raises:
        CheckpointError: the source belongs to another engine, or does not fit its sizes.
    """
    if isinstance(sizes, SwiftF0Config):
        if not isinstance(source, OnnxFile):
            raise CheckpointError(f"{source}: swift-f0 is taken from its published graph, not from tensors")
        return PublishedSwiftF0(source)
    return load_network(sizes, source)


@torch.inference_mode()
def compare_f0(engine: Engine, network: nn.Module, preset: Preset, parity: Parity) -> None:
    """Compare outputs at several lengths and batch sizes; `network` is from `f0_reference`."""
    sizes = preset.f0
    if isinstance(sizes, SwiftF0Config):
        for index, (rows, length) in enumerate(_SAMPLES):
            audio = voices(index, rows, length)
            got = engine.run({"features": audio[:, None]})["activations"]
            want = network(torch.from_numpy(audio)).numpy()
            parity.add("pitch", got[..., 0], want[..., 0])
            parity.add("confidence", got[..., 1], want[..., 1])
        return
    for index, (rows, length) in enumerate(_FRAMES):
        features = normal(0, "parity log-mel", index, (rows, sizes.n_mels, length))
        features = features * np.float32(LOG_MEL_VARIANCE**0.5) + np.float32(LOG_MEL_MEAN)
        want = network(torch.from_numpy(features)).numpy()
        parity.add("salience", engine.run({"features": features})["activations"], want)


def voices(index: int, rows: int, length: int) -> NDArray[np.float32]:
    """Make pulse trains in weak noise, one pitch per row: confidence is near 1, as in use."""
    time = np.arange(length)
    noise = normal(0, "parity samples", index, (rows, length)) * np.float32(0.003)
    pitches = 110.0 * 1.7 ** np.arange(rows)
    pulses = [np.cos(2 * np.pi * np.outer(np.arange(1, 9), time) * hz / 16_000).sum(axis=0) for hz in pitches]
    voices: NDArray[np.float32] = np.stack(pulses).astype(np.float32) * np.float32(0.05) + noise
    return voices
