"""Weights of the speaker encoders: random initialisation and the check of published files. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping

from heartvoice.checkpoints.random_init import InitFn, InitSpec
from heartvoice.checkpoints.safetensors_reader import TensorSource, listed
from heartvoice.checkpoints.wavlm import wavlm_init
from heartvoice.config.presets import AnySpeaker, CampplusConfig, EcapaConfig, SpeakerConfig, WavlmConfig
from heartvoice.errors import CheckpointError

BATCHES = ".num_batches_tracked"
"""Suffix of BatchNorm's counter, which inference does not use."""
_BANK_DB = 10.0
"""Deviation of ECAPA's features, which are not logarithms but decibels."""
_BATCH_NORMS = (".bn", "batchnorm.", "shortcut.1.", "norm.norm.", "asp_bn.norm.")


def speaker_init(sizes: AnySpeaker) -> InitFn:
    """Initial scales of a speaker encoder: activations of deviation near 1, so that embeddings differ."""
    match sizes:
        case SpeakerConfig():
            return _lstm
        case CampplusConfig() | EcapaConfig():
            return _convolutions
        case WavlmConfig():
            return wavlm_init(sizes)


def _lstm(name: str, shape: tuple[int, ...]) -> InitSpec:
    if name.startswith("lstm.") and len(shape) == 2:
        return InitSpec(1 / math.sqrt(shape[1]))
    return InitSpec(0.1) if name.startswith("lstm.") else InitSpec(1 / math.sqrt(shape[-1]))


def _convolutions(name: str, shape: tuple[int, ...]) -> InitSpec:
    if name.endswith(BATCHES):
        return InitSpec(0.0)
    if any(part in name for part in _BATCH_NORMS):
        if name.endswith("running_var"):
            return InitSpec(0.2, mean=1.0)
        return InitSpec(0.1, mean=1.0) if name.endswith(".weight") else InitSpec(0.1)
    if name.endswith(".bias"):
        return InitSpec(0.1)
    deviation = math.sqrt(2 / math.prod(shape[1:]))  # half of a ReLU's outputs are zero
    return InitSpec(deviation / _BANK_DB if name.startswith("blocks.0.") else deviation)


def check_tensors(source: TensorSource, wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Check names and shapes of a published file; no value is read.

    Args:
        source: opened file.
        wanted: names and shapes of the network; BatchNorm's counters may be missing.

    Raises:
        CheckpointError: a tensor is missing, unknown or has the wrong shape.
    """
    missing = [name for name in wanted if not source.parts(name) and not name.endswith(BATCHES)]
    if missing:
        raise CheckpointError(f"{source}: missing {listed(missing)}")
    unknown = sorted(source.names - set(wanted))
    if unknown:
        raise CheckpointError(f"{source}: unknown {listed(unknown)}")
    for name, shape in wanted.items():
        if name in source.names and source.shape(name) != shape:
            raise CheckpointError(f"{source.where(name)}: expected shape {list(shape)}, got {list(source.shape(name))}")
