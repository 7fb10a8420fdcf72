"""Published RoFormer files: the checkpoint, which may run no code, and the configuration beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heartvoice.checkpoints.roformer import open_roformer, read_configuration
from heartvoice.config.presets import PRESETS, SEPARATORS, RoformerConfig, with_separator
from heartvoice.config.roformer import MEL_BANDS, ROFORMERS
from heartvoice.errors import CheckpointError
from heartvoice.export.weights import random_weights
from heartvoice.models.load import load_network, random_checkpoint

VIPERX = ROFORMERS["bs_roformer"]
CONFIGURATION = """\
audio:
  chunk_size: 64
  dim_f: 1024
  hop_length: 441
  num_channels: 2
  sample_rate: 44100
model:
  dim: 8
  depth: 1
  dim_head: 4
  heads: 2
  stereo: true
  num_stems: 1
  freqs_per_bands: !!python/tuple
    - 2
    - 3
    - 12
  dim_freqs_in: 17
  flash_attn: true
  stft_n_fft: 32
  stft_hop_length: 8
  stft_win_length: 32
  stft_normalized: false
  multi_stft_resolutions_window_sizes: !!python/tuple
  - 4096
  - 2048
training:
  instruments:
  - Vocals
  - other
  target_instrument: Vocals
  lr: 1.0e-05
inference:
  batch_size: 1
  num_overlap: 4
"""


def configured(folder: Path, text: str = CONFIGURATION, name: str = "model.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def written(folder: Path, sizes: RoformerConfig, name: str = "model.ckpt") -> Path:
    source = random_checkpoint(sizes, 0)
    torch.save({key: torch.from_numpy(source.array(key)) for key in source.names}, folder / name)
    return folder / name


def test_a_published_configuration_gives_all_sizes(tmp_path: Path) -> None:
    sizes = read_configuration(configured(tmp_path), VIPERX)
    assert sizes == RoformerConfig(
        bands=((0, 1), (2, 4), (5, 16)), dim=8, depth=1, dim_head=4, heads=2, stft_n_fft=32, stft_hop_length=8,
        chunk_size=64, num_overlap=4,
    )  # fmt: skip
    assert sizes.sources == ("vocals", "instrumental")


def test_mel_bands_and_six_stems_are_read(tmp_path: Path) -> None:
    mel = "model: {dim: 384, depth: 6, num_bands: 60, num_stems: 1}\naudio: {chunk_size: 352800}"
    assert read_configuration(configured(tmp_path, mel), ROFORMERS["mel_band_roformer"]).bands == MEL_BANDS
    six = "model: {num_stems: 6, stft_hop_length: 512}\ninference: {num_overlap: 2}\naudio: {chunk_size: 588800}"
    found = read_configuration(configured(tmp_path, six), ROFORMERS["bs_roformer_sw"])
    assert found.stems == ROFORMERS["bs_roformer_sw"].stems
    assert found.residual == ""


@pytest.mark.parametrize(
    ("target", "sources"),
    [("other", ("instrumental", "vocals")), ("drums", ("drums", "no_drums"))],
)
def test_a_network_of_another_stem_leaves_the_rest(tmp_path: Path, target: str, sources: tuple[str, ...]) -> None:
    text = CONFIGURATION.replace("target_instrument: Vocals", f"target_instrument: {target}")
    assert read_configuration(configured(tmp_path, text), VIPERX).sources == sources


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("flash_attn: true", "flash_attn: true\n  value_residual: true", "model: unknown value_residual"),
        ("num_overlap: 4", "num_overlap: 4\n  tta: true", "inference: unknown tta"),
        ("stft_normalized: false", "stft_normalized: true", "model.stft_normalized: expected False, got True"),
        ("sample_rate: 44100", "sample_rate: 48000", "audio.sample_rate: expected 44100, got 48000"),
        ("dim_freqs_in: 17", "dim_freqs_in: 1025", "model.dim_freqs_in: expected 17, got 1025"),
        ("chunk_size: 64", "chunk_size: 63", "chunk_size: expected a multiple of 8, got 63"),
        ("num_stems: 1", "num_stems: 2", "training: expected names of 2 stems, got vocals"),
        ("- 12", "- 13", "bands: expected 17 bins, got 18"),
        ("- 12", "- twelve", "freqs_per_bands: expected a list of sizes"),
        ("dim: 8", "dim: 8.5", "dim: expected a size, got 8.5"),
        ("stereo: true", "stereo: 2", "stereo: expected true or false, got 2"),
        ("model:", "modell:", "expected a section model"),
        ("!!python/tuple\n  - 4096", "!!python/name:os.getcwd\n  - 4096", "could not determine a constructor"),
    ],
)
def test_a_setting_that_is_unknown_or_unsupported_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert CONFIGURATION.count(old) == 1
    with pytest.raises(CheckpointError, match=message) as raised:
        read_configuration(configured(tmp_path, CONFIGURATION.replace(old, new)), VIPERX)
    assert str(tmp_path / "model.yaml") in str(raised.value)


def test_a_checkpoint_of_its_configuration_loads_strictly(tmp_path: Path) -> None:
    configured(tmp_path)
    sizes = read_configuration(tmp_path / "model.yaml", VIPERX)
    file = written(tmp_path, sizes)
    for place in (file, tmp_path):
        found, source = open_roformer(place, VIPERX)
        assert found == sizes
        load_network(found, source)
    extra = torch.load(file) | {"layers.9.norm.gamma": torch.ones(8)}
    torch.save(extra, file)
    with pytest.raises(CheckpointError, match=r"unknown layers\.9\.norm\.gamma"):
        load_network(sizes, open_roformer(file, VIPERX)[1])


class Code:
    """What a pickle would run: harmless, but seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_checkpoint_that_names_code_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    torch.save({"final_norm.gamma": torch.ones(8), "more": Code(tmp_path / "made")}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=r"model\.ckpt: not a readable checkpoint"):
        open_roformer(tmp_path, VIPERX)
    assert not (tmp_path / "made").exists()


def test_a_folder_without_one_checkpoint_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"found none; `heartvoice weights pull --only mel_band_roformer`"):
        open_roformer(tmp_path, ROFORMERS["mel_band_roformer"])
    for name in ("a.ckpt", "b.ckpt"):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=r"found a\.ckpt, b\.ckpt"):
        open_roformer(tmp_path, VIPERX)


def test_a_configuration_that_belongs_to_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").touch()
    for name in ("a.yaml", "b.yaml"):
        configured(tmp_path, name=name)
    with pytest.raises(
        CheckpointError, match=r"expected model\.yaml or one \*\.yaml beside it, found a\.yaml, b\.yaml"
    ):
        open_roformer(tmp_path, VIPERX)


def test_a_separator_s_file_joins_random_weights(tmp_path: Path) -> None:
    sizes = read_configuration(configured(tmp_path), VIPERX)
    file = written(tmp_path, sizes)
    weights = random_weights(with_separator(PRESETS["tiny"], "bs_roformer"), 0, file)
    assert weights.preset.separator == sizes
    assert weights.origin_of("separator") == "bs_roformer (model.ckpt)"
    assert weights.origin_of("vocoder") == "random seed=0"
    assert weights.licences["separator"].startswith("unknown")
    name = "final_norm.gamma"
    np.testing.assert_array_equal(weights.source("separator").array(name), random_checkpoint(sizes, 0).array(name))
    (tmp_path / "model.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"missing|expected \["):  # the published sizes are taken then
        random_weights(with_separator(PRESETS["tiny"], "bs_roformer"), 0, file)
    assert SEPARATORS["bs_roformer"] == VIPERX
