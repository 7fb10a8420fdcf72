"""ECAPA's front end: reference vectors, how far float32 resolves them, and what does not move it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from heartvoice.config.presets import EcapaConfig
from heartvoice.models.load import Checkpoint, load_network
from heartvoice.stages.ecapa_features import HOP, WINDOW, ecapa_decibels, ecapa_features, ecapa_power
from tests.support.golden_cases import GoldenFolder, assert_close, folder_params

FOLDERS = pytest.mark.parametrize("folder", folder_params("speaker_encoders/ecapa"))
N_BANDS = 80
ROUNDING = 2.0**-23
"""Error of a float32 spectrum's bins, relative to the root of the frame's power."""
BANDS_DB = 2e-4
"""What sums and logarithms in float32 may differ by between processors."""


def impulse(level: float) -> np.ndarray:
    audio = np.zeros(1600, np.float32)
    audio[800] = level
    return audio


def published_power(audio: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """Power spectrum by the library that made the reference."""
    window = torch.hamming_window(WINDOW, dtype=dtype)
    spectrum = torch.stft(
        torch.from_numpy(audio).to(dtype), WINDOW, HOP, window=window, pad_mode="constant", return_complex=True
    )
    power: np.ndarray = torch.view_as_real(spectrum).square().sum(-1).T.numpy()
    return power


def rounding_db(power: np.ndarray) -> np.ndarray:
    """How far a float32 spectrum may move the bands of a power spectrum."""
    error = ROUNDING * np.sqrt(power.sum(axis=1, keepdims=True))
    return ecapa_decibels(np.square(np.sqrt(power) + error), N_BANDS) - ecapa_decibels(power, N_BANDS)


@FOLDERS
def test_bands_of_the_references_spectrum_are_the_reference(folder: GoldenFolder) -> None:
    io = folder.io
    for name, audio in {"": io["wave_16k"][0], "silence.": impulse(0.0), "impulse.": impulse(1.0)}.items():
        bank = ecapa_decibels(published_power(audio, torch.float32), N_BANDS)
        both = 2 * rounding_db(ecapa_power(audio))  # the reference's processor rounded its spectrum otherwise
        assert np.all(np.abs(bank - io[f"{name}fbank"][0]) <= BANDS_DB + both)


@FOLDERS
def test_the_spectrum_is_the_references_in_double_precision(folder: GoldenFolder) -> None:
    audio = folder.io["wave_16k"][0]
    power = ecapa_power(audio)
    np.testing.assert_allclose(power, published_power(audio, torch.float64), rtol=0, atol=1e-12 * power.max())


@FOLDERS
def test_the_front_end_is_the_reference_as_far_as_float32_resolves_it(folder: GoldenFolder) -> None:
    io = folder.io
    audio = io["wave_16k"][0]
    assert_close(ecapa_decibels(ecapa_power(impulse(1.0)), N_BANDS)[None], io["impulse.fbank"], 1e-4)
    power = ecapa_power(audio)
    worst = rounding_db(power)
    assert np.all(np.abs(ecapa_decibels(power, N_BANDS) - io["fbank"][0]) <= BANDS_DB + worst)
    assert np.median(worst) < 1e-4  # or the bound would allow anything


@FOLDERS
@torch.inference_mode()
def test_a_wave_has_the_references_embedding(folder: GoldenFolder) -> None:
    sizes = EcapaConfig.from_config(folder.config)
    network = load_network(sizes, Checkpoint.open(folder.path / "weights.safetensors"))
    features = ecapa_features(folder.io["wave_16k"][0], sizes.n_bands)
    assert_close(features.mean(axis=0), np.zeros(sizes.n_bands), 1e-4)
    assert_close(network(torch.from_numpy(features)[None]), folder.io["embedding"], 1e-4)


def test_level_does_not_move_the_features() -> None:
    noise = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    np.testing.assert_allclose(ecapa_features(noise * 0.25, 80), ecapa_features(noise, 80), atol=1e-4)
