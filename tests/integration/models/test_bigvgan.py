"""BigVGAN's module: official names, reference vectors, both forms of its weights, and random ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from heartvoice.checkpoints.bigvgan import RandomBigvgan, check_tensors, filter_taps
from heartvoice.config.svc import BigvganConfig
from heartvoice.errors import CheckpointError
from heartvoice.models.bigvgan import Activation, Bigvgan, bigvgan_manifest, open_bigvgan
from tests.support.golden_cases import GoldenFolder, assert_close, folder_params
from tests.support.vocoders import SMALL, golden, log_mel, random_source, vocoder, weight_norm_names, write_config

FOLDERS = folder_params("seed_vc/bigvgan")
ASSETS = Path(__file__).parents[2] / "assets"


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def golden_network(folder: GoldenFolder) -> Bigvgan:
    return vocoder(*golden(folder))


def decode(network: Bigvgan, mel: np.ndarray) -> np.ndarray:
    audio: np.ndarray = network(torch.from_numpy(mel)).numpy()
    return audio


# --------------------------------------------------------------------------------------------------------------- golden


@pytest.mark.parametrize("folder", FOLDERS)
def test_samples_are_the_reference(folder: GoldenFolder) -> None:
    network, io = golden_network(folder), folder.io
    assert_close(decode(network, io["mel"]), io["wave"], 2e-5)
    assert_close(decode(network, io["mel"]), io["wave_after_remove_weight_norm"], 2e-5)


@pytest.mark.parametrize("folder", FOLDERS)
def test_loud_samples_are_clamped_as_the_reference(folder: GoldenFolder) -> None:
    found = decode(golden_network(folder), folder.io["mel_loud"])
    assert np.abs(found).max() == 1.0
    assert_close(found, folder.io["wave_loud"], 2e-5)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_layer_is_the_reference(folder: GoldenFolder) -> None:
    network, io = golden_network(folder), folder.io
    places = {"conv_pre": network.conv_pre, "activation_post": network.activation_post}
    for name in io:
        kind = name.removeprefix("trace.")
        if kind.startswith("up"):
            places[kind] = network.get_submodule(f"ups.{kind.removeprefix('up')}.0")
        elif kind.startswith("resblock"):
            places[kind] = network.get_submodule(f"resblocks.{kind.removeprefix('resblock')}")
    seen: dict[str, Tensor] = {}
    for name, module in places.items():
        module.register_forward_hook(lambda module, inputs, output, name=name: seen.__setitem__(name, output))
    decode(network, io["mel"])
    traces = [name.removeprefix("trace.") for name in io if name.startswith("trace.")]
    assert len(traces) >= 4
    for name in traces:
        assert_close(seen[name], io[f"trace.{name}"], 2e-5)


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_activation_is_the_reference_step_by_step(folder: GoldenFolder) -> None:
    activation, io = golden_network(folder).get_submodule("resblocks.0.activations.0"), folder.io
    assert isinstance(activation, Activation)
    doubled = activation.upsample(torch.from_numpy(io["act.in"]))
    assert_close(doubled, io["act.upsampled"], 1e-5)
    assert_close(activation.act(doubled), io["act.snake"], 1e-5)
    assert_close(activation(torch.from_numpy(io["act.in"])), io["act.out"], 1e-5)


@pytest.mark.parametrize("folder", FOLDERS)
def test_filters_are_the_reference(folder: GoldenFolder) -> None:
    for name in ("act.up_filter", "act.down_filter"):
        assert_close(filter_taps().reshape(1, 1, -1), folder.io[name], 1e-7)


@pytest.mark.parametrize("folder", FOLDERS)
def test_folded_weights_are_the_reference(folder: GoldenFolder) -> None:
    """A transposed convolution is normalised for each input channel, the first axis of its weight."""
    network, io = golden_network(folder), folder.io
    names = [name.removeprefix("folded.") for name in io if name.startswith("folded.")]
    assert any(name.startswith("ups.") for name in names)
    for name in names:
        assert_close(network.state_dict()[name], io[f"folded.{name}"], 1e-6)


# ---------------------------------------------------------------------------------------------------------------- files


def test_full_size_names_and_shapes_are_those_of_the_folded_official_file() -> None:
    official = json.loads((ASSETS / "bigvgan_44k_no_weight_norm_state_dict.json").read_text())
    assert bigvgan_manifest(BigvganConfig()) == {name: tuple(shape) for name, shape in official.items()}


def test_full_size_names_and_shapes_fit_the_official_file_with_weight_norm() -> None:
    official = json.loads((ASSETS / "bigvgan_44k_state_dict.json").read_text())
    shapes = {name: tuple(shape) for name, shape in official.items()}
    wanted = bigvgan_manifest(BigvganConfig())
    assert weight_norm_names(wanted) == shapes
    check_tensors(RandomBigvgan(shapes, 0, BigvganConfig()), wanted)


def state_of(*, folded: bool) -> dict[str, Tensor]:
    """One small network's tensors in either spelling."""
    shapes = weight_norm_names(bigvgan_manifest(SMALL))
    source = RandomBigvgan(shapes, 3, SMALL)
    if folded:
        return {name: torch.from_numpy(source.array(name)) for name in bigvgan_manifest(SMALL)}
    parts = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    stored = {}
    for name in shapes:
        path, _, leaf = name.rpartition(".")
        stored[name] = torch.from_numpy(source.array(f"{path}.{parts.get(leaf, leaf)}"))
    return stored


def saved(folder: Path, state: dict[str, Tensor], **config: object) -> Path:
    write_config(folder, SMALL, **config)
    torch.save({"generator": state}, folder / "bigvgan_generator.pt")
    return folder


def test_weight_norm_and_folded_files_are_one_network(tmp_path: Path) -> None:
    normed, folded, plain = (tmp_path / name for name in ("normed", "folded", "plain"))
    for folder in (normed, folded, plain):
        folder.mkdir()
    saved(normed, state_of(folded=False))
    saved(folded, state_of(folded=True))
    write_config(plain, SMALL)
    save_file(state_of(folded=False), plain / "model.safetensors")
    networks = []
    for folder in (normed, folded, plain):
        sizes, source = open_bigvgan(folder)
        assert sizes == SMALL
        networks.append(vocoder(sizes, source))
    mel = log_mel(SMALL, 9)
    want = decode(networks[0], mel)
    assert want.any()
    for network in networks[1:]:
        assert_close(decode(network, mel), want, 1e-6)
    state = state_of(folded=False)
    for name in ("conv_pre", "ups.1.0", "resblocks.0.convs1.0", "conv_post"):
        expected = torch._weight_norm(state[f"{name}.weight_v"], state[f"{name}.weight_g"], 0)
        assert_close(networks[0].state_dict()[f"{name}.weight"], expected.numpy(), 1e-6)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("conv_pre.bias", None, r"missing conv_pre\.bias"),
        ("ups.0.0.weight_g", None, r"missing ups\.0\.0\.weight"),
        ("extra.weight", torch.zeros(1), r"unknown extra\.weight"),
        ("conv_pre.bias", torch.zeros(5), r"conv_pre\.bias: expected shape \[16\], got \[5\]"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, name: str, value: Tensor | None, complaint: str) -> None:
    state = {key: tensor for key, tensor in state_of(folded=False).items() if key != name}
    saved(tmp_path, state | ({} if value is None else {name: value}))
    with pytest.raises(CheckpointError, match=complaint):
        open_bigvgan(tmp_path)


def test_a_value_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    state = state_of(folded=False)
    state["ups.0.0.weight_v"][3, 0, 0] = torch.nan
    with pytest.raises(CheckpointError, match=r"ups\.0\.0\.weight_v.*not finite"):
        vocoder(*open_bigvgan(saved(tmp_path, state)))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"resblock": "2"}, "resblock: expected '1', got '2'"),
        ({"snake_logscale": False}, "snake_logscale: expected True, got False"),
        ({"use_tanh_at_final": True}, "use_tanh_at_final: expected False, got True"),
        ({"use_bias_at_final": None}, "use_bias_at_final: expected False, got None"),
        ({"upsample_kernel_sizes": [8]}, "upsample_kernel_sizes: does not fit"),
        ({"upsample_kernel_sizes": [8, 4]}, "upsample_kernel_sizes: does not fit"),
        ({"upsample_initial_channel": 18}, "upsample_initial_channel: does not fit"),
        ({"resblock_kernel_sizes": [3, 4]}, "resblock_kernel_sizes: does not fit"),
        ({"resblock_dilation_sizes": [[1]]}, "resblock_dilation_sizes: does not fit"),
    ],
)
def test_a_configuration_of_another_network_is_refused(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        open_bigvgan(saved(tmp_path, {}, **changes))


def test_a_folder_without_its_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: cannot be read"):
        open_bigvgan(tmp_path)
    write_config(tmp_path, SMALL)
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        open_bigvgan(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="expected a JSON object"):
        open_bigvgan(tmp_path)
    torch.save({"model": {}}, tmp_path / "bigvgan_generator.pt")
    write_config(tmp_path, SMALL)
    with pytest.raises(CheckpointError, match="generator"):
        open_bigvgan(tmp_path)


# ------------------------------------------------------------------------------------------------------------ behaviour


def test_audio_follows_the_mel() -> None:
    network = vocoder(SMALL)
    one, other = (decode(network, log_mel(SMALL, 12, index)) for index in range(2))
    assert np.abs(one - other).max() > 0.1 * np.abs(one).max()


def test_random_weights_have_the_true_filter() -> None:
    filters = [value for name, value in vocoder(SMALL).state_dict().items() if name.endswith("filter")]
    assert len(filters) == 2 * (2 * 2 * (2 + 1) + 1)
    assert all(np.array_equal(value.reshape(-1).numpy(), filter_taps()) for value in filters)
    assert random_source(SMALL).array("conv_pre.bias").std() > 0


def test_a_constant_passes_an_activation_unfiltered() -> None:
    """The filters' gain at zero is one, and ends are repeated: nothing fades there."""
    activation = Activation(3)
    x = torch.full((1, 3, 6), 0.7)
    assert_close(activation(x), np.full((1, 3, 6), 0.7 + np.sin(0.7) ** 2), 1e-5)


@pytest.mark.parametrize("spelling", ["folded", "weight norm"])
@pytest.mark.parametrize(
    "sizes", [SMALL, replace(BigvganConfig(), upsample_initial_channel=64)], ids=["small", "official rates"]
)
def test_random_audio_is_as_loud_as_music(sizes: BigvganConfig, spelling: str) -> None:
    shapes = bigvgan_manifest(sizes)
    source = RandomBigvgan(shapes if spelling == "folded" else weight_norm_names(shapes), 0, sizes)
    audio = decode(vocoder(sizes, source), log_mel(sizes, 24))
    assert audio.shape == (1, 1, 24 * sizes.hop)
    assert 0.01 < audio.std() < 0.3
    assert np.abs(audio).max() < 0.95
