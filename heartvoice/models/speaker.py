"""Speaker encoders as PyTorch modules, and Resemblyzer's network.

Source: L. Wan, Q. Wang, A. Papir, I. Lopez Moreno, "Generalized End-to-End Loss for Speaker Verification", 2018,
section 2: an LSTM over filter bank frames whose last state is projected onto the unit sphere. The names are those of
Resemblyzer's published weights, which have a ReLU after the projection (export baselines, section 2).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from heartvoice.checkpoints.speaker import check_tensors
from heartvoice.checkpoints.torch_reader import TorchFile
from heartvoice.checkpoints.wavlm import wavlm_sizes
from heartvoice.config.presets import AnySpeaker, CampplusConfig, EcapaConfig, SpeakerConfig, WavlmConfig
from heartvoice.models.campplus import Campplus
from heartvoice.models.ecapa import Ecapa
from heartvoice.models.meta_build import on_meta_device
from heartvoice.models.wavlm import Wavlm, training_only

MIN_NORM = 1e-12
"""Projections shorter than this are not normalised; they stay a zero vector."""
WAVLM_FILE = "pytorch_model.bin"
_TRAINING_ONLY = frozenset({"similarity_weight", "similarity_bias"})
"""Scale and offset of the training loss."""


class Resemblyzer(nn.Module):
    """The LSTM speaker encoder."""

    def __init__(self, sizes: SpeakerConfig) -> None:
        super().__init__()
        self.lstm = nn.LSTM(sizes.n_bands, sizes.hidden, sizes.num_layers, batch_first=True)
        self.linear = nn.Linear(sizes.hidden, sizes.embedding)

    def forward(self, features: Tensor) -> Tensor:
        """Embed partial utterances.

        Args:
            features: float32 [B, T, bands], mel power.

        Returns:
            float32 [B, D], of norm 1 and nowhere negative.
        """
        _, (hidden, _) = self.lstm(features)
        raw = torch.relu(self.linear(hidden[-1]))
        embedding: Tensor = raw / torch.linalg.vector_norm(raw, dim=1, keepdim=True).clamp(min=MIN_NORM)
        return embedding


def build_speaker(sizes: AnySpeaker) -> nn.Module:
    """Build a speaker encoder on the default device; it maps [B, T, bands] to [B, D]."""
    match sizes:
        case SpeakerConfig():
            return Resemblyzer(sizes)
        case CampplusConfig():
            return Campplus(sizes)
        case EcapaConfig():
            return Ecapa(sizes)
        case WavlmConfig():
            return Wavlm(sizes)


def speaker_manifest(sizes: AnySpeaker) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a speaker encoder's tensors."""
    with on_meta_device():
        return {name: tuple(tensor.shape) for name, tensor in build_speaker(sizes).state_dict().items()}


def open_resemblyzer(path: Path, sizes: SpeakerConfig | None = None) -> TorchFile:
    """Open Resemblyzer's `pretrained.pt`; optimiser state and the loss's parameters are dropped by name.

    Args:
        path: the file.
        sizes: sizes of the network; default those of the published weights.

    Raises:
        CheckpointError: the file is missing, damaged or does not fit.
    """
    source = TorchFile.open(
        path,
        lambda value: value["model_state"],
        rename=lambda name: None if name in _TRAINING_ONLY else name,
    )
    check_tensors(source, speaker_manifest(sizes or SpeakerConfig()))
    return source


def open_campplus(path: Path, sizes: CampplusConfig | None = None) -> TorchFile:
    """Open the official `campplus_cn_common.bin`.

    Args:
        path: the file.
        sizes: sizes of the network; default those of the official weights.

    Raises:
        CheckpointError: the file is missing, damaged or does not fit.
    """
    return _open_flat(path, sizes or CampplusConfig())


def open_ecapa(path: Path, sizes: EcapaConfig | None = None) -> TorchFile:
    """Open the published `embedding_model.ckpt`.

    Args:
        path: the file.
        sizes: sizes of the network; default those of the published weights.

    Raises:
        CheckpointError: the file is missing, damaged or does not fit.
    """
    return _open_flat(path, sizes or EcapaConfig())


def _open_flat(path: Path, sizes: AnySpeaker) -> TorchFile:
    """Open a file whose tensors have the network's own names."""
    source = TorchFile.open(path)
    check_tensors(source, speaker_manifest(sizes))
    return source


def open_wavlm(folder: Path) -> tuple[WavlmConfig, TorchFile]:
    """Open a published WavLM x-vector model; tensors of training alone are dropped by name.

    Args:
        folder: holds `config.json`, `preprocessor_config.json` and `pytorch_model.bin`.

    Returns:
        The sizes that the files state, and the tensors.

    Raises:
        CheckpointError: a file is missing or damaged, or does not fit the others.
    """
    sizes = wavlm_sizes(folder)
    source = TorchFile.open(folder / WAVLM_FILE, rename=lambda name: None if training_only(name) else name)
    check_tensors(source, speaker_manifest(sizes))
    return sizes, source
