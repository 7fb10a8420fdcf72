"""Compares the separator's graph with its PyTorch module."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from heartvoice.config.presets import AnySeparator, Preset, RoformerConfig, SeparatorConfig, SpleeterConfig
from heartvoice.export.parity import Parity
from heartvoice.keyed_random import normal
from heartvoice.runtime.engines import Engine
from heartvoice.stages.separation.roformer_transform import RoformerTransform
from heartvoice.stages.separation.spleeter import SpleeterTransform

TOLERANCE = 1e-5
"""Largest relative error in float32: far below audibility, and ten times the summation error."""
_CHORD_HZ = (110.0, 220.5, 331.0, 442.0)
_LOUDNESS = (1.0, 0.03)


def music(sizes: AnySeparator, rows: int) -> NDArray[np.float32]:
    """Make chords with noise, float32 [rows, 2, L]: channels differ, later rows are softer."""
    time = np.arange(sizes.segment_samples) / sizes.samplerate
    chord = np.sin(2 * np.pi * np.outer(_CHORD_HZ, time) + np.arange(len(_CHORD_HZ))[:, None]).sum(axis=0)
    noise = normal(0, "parity mix", 0, (rows, 2, len(time)))
    gains = np.resize(_LOUDNESS, rows)[:, None, None] * np.array([[1.0], [0.7]])
    mix: NDArray[np.float32] = ((0.1 * chord + 0.05 * noise) * gains).astype(np.float32)
    return mix


def magnitudes(sizes: SpleeterConfig, rows: int) -> NDArray[np.float32]:
    """Make the magnitudes of `music`, float32 [rows, 2, T, F]."""
    transform = SpleeterTransform(sizes)
    found = [np.abs(transform.forward(mix)[..., : sizes.bins]) for mix in music(sizes, rows)]
    return np.stack(found)


@torch.inference_mode()
def compare_spleeter(engine: Engine, network: torch.nn.Module, preset: Preset, parity: Parity) -> None:
    """Compare the estimates of two segments in one batch, row by row; one segment is soft."""
    assert isinstance(preset.separator, SpleeterConfig)
    inputs = magnitudes(preset.separator, 2)
    estimates = network(torch.from_numpy(inputs))
    got = engine.run({"magnitudes": inputs})
    for row in range(len(inputs)):
        parity.add("estimates", got["estimates"][row], estimates[row].numpy())


def features(sizes: RoformerConfig, rows: int) -> NDArray[np.float32]:
    """Make the features of `music`, float32 [rows, T, V]."""
    transform = RoformerTransform(sizes)
    return np.stack([transform.features(mix[: sizes.channels]) for mix in music(sizes, rows)])


@torch.inference_mode()
def compare_roformer(engine: Engine, network: torch.nn.Module, preset: Preset, parity: Parity) -> None:
    """Compare the masks of two chunks, one call each; one chunk is soft."""
    assert isinstance(preset.separator, RoformerConfig)
    for row in features(preset.separator, 2):
        masks = network(torch.from_numpy(row[None]))
        parity.add("masks", engine.run({"features": row[None]})["masks"], masks.numpy())


@torch.inference_mode()
def compare_htdemucs(engine: Engine, network: torch.nn.Module, preset: Preset, parity: Parity) -> None:
    """Compare spectra and waves of two segments in one batch, row by row; one segment is soft."""
    from heartvoice.models.demucs_module import Separator  # needs demucs, which Spleeter does without

    assert isinstance(network, Separator)
    assert isinstance(preset.separator, SeparatorConfig)
    mix = torch.from_numpy(music(preset.separator, 2))
    spectrum = network.spectrum_of(mix)
    spectra, waves = network.core(mix, spectrum)
    got = engine.run({"mix": mix.numpy(), "spectrum": spectrum.contiguous().numpy()})
    for row in range(len(mix)):
        parity.add("spectra", got["spectra"][row], spectra[row].numpy())
        parity.add("waves", got["waves"][row], waves[row].numpy())
