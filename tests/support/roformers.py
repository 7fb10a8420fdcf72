"""RoFormer separators of golden folders."""

from __future__ import annotations

import numpy as np

from heartvoice.audio.dsp import mel_filter_bank
from heartvoice.config.roformer import Bands, RoformerConfig
from tests.support.golden_cases import GoldenFolder, all_folders


def golden_roformers() -> list[GoldenFolder]:
    """Folders of networks, of both kinds."""
    found = [folder for folder in all_folders() if folder.kind.startswith("roformer/")]
    return [folder for folder in found if (folder.path / "weights.safetensors").is_file()]


def golden_sizes(folder: GoldenFolder) -> RoformerConfig:
    """Sizes of a folder; one without a table of mel bands has Slaney's."""
    config = dict(folder.config)
    if "num_bands" in config and "bands_first_last_bin" not in config:
        bands = mel_bands(config["num_bands"], config.get("sample_rate", 44_100), config["stft_n_fft"])
        config["bands_first_last_bin"] = [list(band) for band in bands]
    return RoformerConfig.from_published(config)


def mel_bands(num_bands: int, sample_rate_hz: int, n_fft: int) -> Bands:
    """Return the first and last bin of each of Slaney's mel filters that is above zero.

    Bin 0 belongs to the first band and the last bin to the last band.
    """
    bank = mel_filter_bank(sample_rate_hz, n_fft, num_bands, 0.0, sample_rate_hz / 2, scale="slaney", area_norm=False)
    held = bank > 0
    held[0, 0] = held[-1, -1] = True
    bins = [np.flatnonzero(row) for row in held]
    return tuple((int(row[0]), int(row[-1])) for row in bins)
