"""The separator's checkpoints: official files by their real names, at a reduced width."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import demucs
import numpy as np
import pytest
import torch
import yaml
from demucs.apply import apply_model
from demucs.repo import AnyModelRepo, BagOnlyRepo, LocalRepo

from heartvoice.config.presets import SeparatorConfig, htdemucs_of
from heartvoice.errors import CheckpointError
from heartvoice.models.demucs import open_separator
from heartvoice.models.demucs_module import Separator
from heartvoice.models.load import build_module, load_network, random_checkpoint
from tests.support.music import band
from tests.support.separator_files import (
    FT,
    SMALLEST,
    TINY,
    Package,
    kwargs_of,
    package_of,
    write_safetensors,
    write_th,
)


def loaded(folder: Path, sizes: SeparatorConfig) -> tuple[SeparatorConfig, Separator]:
    found, source = open_separator(folder, sizes)
    module = load_network(found, source)
    assert isinstance(module, Separator)
    return found, module


# ------------------------------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize("write", [write_th, write_safetensors])
def test_official_files_give_the_packages_own_samples(write: Callable[..., Path], tmp_path: Path) -> None:
    write(tmp_path, "955717e8", package_of())
    sizes, module = loaded(tmp_path, SeparatorConfig())  # everything but the number is the checkpoint's own
    assert sizes == TINY
    mix = torch.from_numpy(band(1.0).copy())[None]
    if write is write_th:  # as demucs reads it
        theirs = AnyModelRepo(LocalRepo(tmp_path), BagOnlyRepo(tmp_path, LocalRepo(tmp_path))).get_model("955717e8")
    else:
        from demucs.hf import load_safetensors_model

        theirs = load_safetensors_model(tmp_path / "955717e8.safetensors")
    with torch.inference_mode():
        want = apply_model(theirs, mix, shifts=0)
    torch.testing.assert_close(module.separate(mix), want, rtol=0, atol=0)


def test_a_bag_of_four_has_its_networks_in_the_order_of_the_yaml(tmp_path: Path) -> None:
    for seed, signature in enumerate(FT):
        (write_th if seed % 2 else write_safetensors)(tmp_path, signature, package_of(SMALLEST, seed=seed))
    sizes, module = loaded(tmp_path, SeparatorConfig(n_models=4))
    assert sizes == replace(SMALLEST, n_models=4)
    state = module.state_dict()
    for seed in range(len(FT)):
        name = "encoder.0.conv.weight"
        torch.testing.assert_close(state[f"models.{seed}.{name}"], package_of(SMALLEST, seed)["state"][name].float())
    published = yaml.safe_load((Path(demucs.__file__).parent / "remote" / "htdemucs_ft.yaml").read_text())
    assert tuple(published["models"]) == FT


def test_a_yaml_beside_the_files_is_used(tmp_path: Path) -> None:
    write_th(tmp_path, "cafe0001", package_of())
    (tmp_path / "mine.yaml").write_text("models: ['cafe0001']\nsegment: 0.25\n")
    sizes, source = open_separator(tmp_path, SeparatorConfig(n_models=4))
    assert (sizes.n_models, sizes.segment) == (1, "1/4")
    assert source.where("models.0.encoder.0.conv.weight").endswith("encoder.0.conv.weight")
    hashes = source.sha256()
    assert list(hashes) == [path.name for path in tmp_path.glob("*.th")]


def test_half_precision_states_are_read_in_single(tmp_path: Path) -> None:
    package = package_of()
    write_th(tmp_path, "955717e8", package)
    _, source = open_separator(tmp_path, TINY)
    array = source.array("models.0.decoder.3.conv_tr.weight")
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, package["state"]["decoder.3.conv_tr.weight"].float().numpy())


def test_the_official_network_has_the_sizes_of_the_preset() -> None:
    module = build_module(SeparatorConfig())
    assert sum(tensor.numel() for tensor in module.parameters()) == 41_984_456
    assert all(tensor.device.type == "meta" for tensor in module.parameters())


# ------------------------------------------------------------------------------------------------------------- refusals


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "was_here"
    write_th(tmp_path / "demucs", "955717e8", package_of() | {"training_args": _Evil(trace)})
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        open_separator(tmp_path / "demucs", TINY)
    assert not trace.exists()
    torch.load(next((tmp_path / "demucs").glob("*.th")), weights_only=False)
    assert trace.exists()  # it would have


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "955717e8.th").write_bytes(pickle.dumps(_Evil(tmp_path / "was_here")))
    with pytest.raises(CheckpointError):
        open_separator(tmp_path, TINY)
    assert not (tmp_path / "was_here").exists()


def test_a_damaged_file_is_refused_by_the_checksum_in_its_name(tmp_path: Path) -> None:
    path = write_th(tmp_path, "955717e8", package_of())
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=f"{path.name}: damaged: its sha256 begins with"):
        open_separator(tmp_path, TINY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"klass": Fraction}, "klass: expected demucs.htdemucs.HTDemucs"),
        ({"kwargs": kwargs_of(cac=False)}, "cac: expected True, got False"),
        ({"kwargs": kwargs_of(t_emb="cape")}, "t_emb: expected 'sin', got 'cape'"),
        ({"kwargs": kwargs_of(norm_starts=2)}, "norm_starts: expected at least depth 4, got 2"),
        ({"kwargs": kwargs_of(depth=6, norm_starts=6)}, "depth: 6 leaves 2 bins"),
        ({"kwargs": {}}, "args, kwargs: not those of"),
        ({"state": [1]}, "expected a state dict"),
        ({"state": {"a": 1}}, "not tensors: a"),
    ],
)
def test_another_architecture_is_refused(change: Package, message: str, tmp_path: Path) -> None:
    write_th(tmp_path, "955717e8", package_of() | change)
    with pytest.raises(CheckpointError, match=message):
        open_separator(tmp_path, TINY)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    package = package_of()
    del package["state"]["tdecoder.1.rewrite.bias"]
    write_th(tmp_path, "955717e8", package)
    sizes, source = open_separator(tmp_path, TINY)
    with pytest.raises(CheckpointError, match=r"missing models\.0\.tdecoder\.1\.rewrite\.bias"):
        load_network(sizes, source)


def test_missing_and_doubled_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"955717e8\.safetensors and 955717e8-.*found none"):
        open_separator(tmp_path, TINY)
    write_th(tmp_path, "955717e8", package_of())
    write_safetensors(tmp_path, "955717e8", package_of())
    with pytest.raises(CheckpointError, match="expected one of 955717e8"):
        open_separator(tmp_path, TINY)


def test_networks_of_different_sizes_are_no_bag(tmp_path: Path) -> None:
    for index, signature in enumerate(FT):
        write_th(tmp_path, signature, package_of(replace(SMALLEST, t_layers=1 + (index == 2))))
    with pytest.raises(CheckpointError, match="92cfc3b6 and f7e0c4bc are networks of different sizes"):
        open_separator(tmp_path, SeparatorConfig(n_models=4))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: ['a', 'b', 'c', 'd']", "weights: expected one source from each network"),
        ("models: ['../a']", "models: expected signatures"),
        ("models: []", "models: expected signatures"),
        ("[1, 2]", "not a bag of networks"),
        ("a: [", "not a bag of networks"),
    ],
)
def test_a_wrong_yaml_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bag.yaml").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        open_separator(tmp_path, TINY)


def test_a_quantized_state_is_refused(tmp_path: Path) -> None:
    write_safetensors(tmp_path, "955717e8", package_of(), structure="{}")
    with pytest.raises(CheckpointError, match="a quantized state"):
        open_separator(tmp_path, TINY)


# ------------------------------------------------------------------------------------------------------ random weights


@pytest.mark.parametrize("preset", ["tiny", "mid"])
def test_random_weights_give_stems_as_loud_as_the_mix(preset: str) -> None:
    sizes = replace(htdemucs_of(preset), segment="1/2")
    module = load_network(sizes, random_checkpoint(sizes, 0))
    assert isinstance(module, Separator)
    mix = torch.from_numpy(band(0.5).copy())[None]
    stems = module.separate(mix)
    ratios = stems.std(dim=(2, 3)) / mix.std()
    assert stems.isfinite().all()
    assert ((ratios > 0.2) & (ratios < 5)).all()
    assert float((stems[:, 0] - stems[:, 1]).std() / stems.std()) > 0.3


def test_every_branch_counts_with_random_weights() -> None:
    module = load_network(SMALLEST, random_checkpoint(SMALLEST, 0))
    assert isinstance(module, Separator)
    mix = torch.from_numpy(band(0.2).copy())[None]
    whole = module.separate(mix)
    scales = {name: parameter for name, parameter in module.named_parameters() if name.endswith(".scale")}
    for name in sorted(scales)[::5]:  # all kinds of branches, some of each
        kept = scales[name].clone()
        scales[name].zero_()
        moved = float((module.separate(mix) - whole).norm() / whole.norm())
        assert moved > 1e-3, name  # a hundred times what parity allows
        scales[name].copy_(kept)
