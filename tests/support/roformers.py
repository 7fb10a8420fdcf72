"""RoFormer separators of golden folders."""

from __future__ import annotations

from heartvoice.audio.mel_bands import mel_bands
from heartvoice.config.roformer import RoformerConfig
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
    return RoformerConfig.from_config(config)
