"""The official files: names at full size, what is passed over, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from heartvoice.checkpoints.seed_vc import dit_sizes, open_seed_vc, open_whisper, regulator_sizes
from heartvoice.config.svc import DitConfig, WhisperConfig
from heartvoice.errors import CheckpointError
from heartvoice.models.load import load_module
from heartvoice.models.seed_vc.build import AnyPart, build_part, part_manifest
from tests.support.svc_networks import DIT, REGULATOR, WHISPER, network_of, random_source

ASSETS = Path(__file__).parents[2] / "assets"
PARTS: dict[str, AnyPart] = {"cfm": DIT, "length_regulator": REGULATOR}


def official(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """A file of the official form: prefixes of data parallelism, dead tensors, other networks, training state."""
    net = {}
    for name, sizes in PARTS.items():
        source = random_source(sizes)
        net[name] = {f"module.{key}": torch.from_numpy(source.array(key)) for key in source.names}
    net["cfm"] |= {
        "module.estimator.x_embedder.weight_g": torch.ones(48, 1),
        "module.estimator.x_embedder.weight_v": torch.ones(48, 12),
        "module.estimator.input_pos": torch.arange(64),
        "module.estimator.transformer.layers.0.skip_in_linear.weight": torch.ones(48, 96),
        "module.estimator.wavenet.in_layers.0.weight": torch.ones(3),
    }
    net["length_regulator"] |= {"module.mask_token": torch.ones(1, 32), "module.embedding.weight": torch.ones(8, 32)}
    return {"net": net | {"style_encoder": {"module.w": torch.ones(2)}}, "epoch": 3, "iters": 9, **(changes or {})}


def meta(sizes: AnyPart) -> torch.nn.Module:
    with torch.device("meta"):
        return build_part(sizes)


# -------------------------------------------------------------------------------------------------- names at full size


def test_full_size_velocity_reads_the_official_names_and_knows_the_dead_ones() -> None:
    official_names = json.loads((ASSETS / "seed_vc_dit_state_dict.json").read_text())["net"]["cfm"]
    network, names = meta(DitConfig()), part_manifest(DitConfig())
    assert {name: tuple(official_names[name]) for name in names} == names
    dead = {name.removeprefix("estimator.") for name in set(official_names) - set(names)}
    skips = {f"transformer.layers.{i}.skip_in_linear.{part}" for i in range(9) for part in ("weight", "bias")}
    tables = {"x_embedder.bias", "x_embedder.weight_g", "x_embedder.weight_v", "cond_embedder.weight"}
    others = {"content_mask_embedder.weight", "skip_linear.weight", "skip_linear.bias", "input_pos"}
    assert dead == skips | tables | others
    never_read: Any = network.never_read
    assert all(never_read(f"estimator.{name}") for name in dead)
    assert not any(never_read(name) for name in names)
    read = sum(np.prod(shape, dtype=np.int64) for shape in names.values())
    assert 173e6 < read < 175e6


def test_full_size_whisper_has_small_s_parameters() -> None:
    names = part_manifest(WhisperConfig())
    assert sum(int(np.prod(shape)) for shape in names.values()) == 88_154_112  # 88.2 M (spec, section 16)
    assert "encoder.layers.0.self_attn.k_proj.bias" not in names


# ---------------------------------------------------------------------------------------------------- official .pth


@pytest.mark.parametrize("part", PARTS)
def test_official_file_loads_without_its_dead_tensors(part: str, tmp_path: Path) -> None:
    path, sizes = tmp_path / "official.pth", PARTS[part]
    torch.save(official(), path)
    source = open_seed_vc(path)[part]
    loaded = network_of(sizes, source).state_dict()
    wanted = network_of(sizes).state_dict()
    assert loaded.keys() == wanted.keys()
    assert all(torch.equal(loaded[name], wanted[name]) for name in wanted)
    assert "official.pth" in source.where("f0_mask")
    assert list(source.sha256()) == ["official.pth"]


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("cfm", "estimator.transformer.layers.1.attention.wqkv.weight"),
        ("cfm", "estimator.transformer.layers.3.skip_in_linear.bias"),
        ("length_regulator", "f0_embedding.weight"),
    ],
)
def test_a_lacking_or_misshapen_tensor_is_named(part: str, name: str, tmp_path: Path) -> None:
    """The original's loader drops what does not fit, with a printed warning."""
    path, value = tmp_path / "official.pth", official()
    tensor = value["net"][part].pop(f"module.{name}")
    torch.save(value, path)
    with pytest.raises(CheckpointError, match=f"missing {name}"):
        load_module(meta(PARTS[part]), open_seed_vc(path)[part])
    value["net"][part][f"module.{name}"] = tensor[:-1]
    torch.save(value, path)
    with pytest.raises(CheckpointError, match=rf"{name}: expected shape"):
        load_module(meta(PARTS[part]), open_seed_vc(path)[part])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"state": {}}, "expected a dictionary with an entry net"),
        ([1], "expected a dictionary with an entry net"),
        ({"net": {"cfm": {}}}, "net holds cfm, but no length_regulator"),
        ({"net": {"cfm": {"a": 1}, "length_regulator": {}}}, r"net\.cfm: not tensors: a"),
    ],
)
def test_a_file_of_another_form_is_refused(value: Any, message: str, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=message):
        open_seed_vc(tmp_path / "other.pth")


def config(**changes: Any) -> dict[str, Any]:
    dit = {"hidden_dim": 48, "num_heads": 3, "depth": 5, "in_channels": 12, "content_dim": 32}
    regulator = {"channels": 32, "in_channels": 24, "n_f0_bins": 256, "sampling_ratios": [1, 1]}
    return {"DiT": dit | changes, "length_regulator": regulator | changes, "style_encoder": {"dim": 20}}


def test_sizes_come_from_the_configuration() -> None:
    assert dit_sizes(config(final_layer_type="mlp")) == DIT
    assert regulator_sizes(config(is_discrete=False)) == REGULATOR


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_as_token": True}, r"DiT\.time_as_token: expected False, got True"),
        ({"final_layer_type": "wavenet"}, r"DiT\.final_layer_type: expected mlp, got wavenet"),
        ({"hidden_dim": None}, "DiT: lacks a size"),
    ],
)
def test_an_estimator_of_another_kind_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        dit_sizes(config(**changes))


def test_a_regulator_without_pitch_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"length_regulator\.f0_condition: expected True, got False"):
        regulator_sizes(config(f0_condition=False))
    with pytest.raises(CheckpointError, match="length_regulator: lacks a size"):
        regulator_sizes({})


# ------------------------------------------------------------------------------------------------------------- Whisper


def whisper_folder(folder: Path, *, pickled: bool, prefix: str = "model.", **changes: Any) -> Path:
    source = random_source(WHISPER)
    tensors = {prefix + name: source.array(name) for name in sorted(source.names)}
    tensors |= {f"{prefix}decoder.layer_norm.weight": np.ones(24, np.float32), "proj_out.weight": np.ones((4, 24))}
    folder.mkdir(exist_ok=True)
    if pickled:
        torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors")
    sizes = {"d_model": 24, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64}
    stated = {"num_mel_bins": 80, "max_source_positions": 1500, "activation_function": "gelu", "decoder_layers": 2}
    (folder / "config.json").write_text(json.dumps(sizes | stated | changes))
    return folder


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "bin"])
@pytest.mark.parametrize("prefix", ["model.", ""])
def test_a_whisper_snapshot_loads_its_encoder_alone(pickled: bool, prefix: str, tmp_path: Path) -> None:
    sizes, source = open_whisper(whisper_folder(tmp_path / "w", pickled=pickled, prefix=prefix))
    assert sizes == WHISPER
    loaded, wanted = network_of(sizes, source).state_dict(), network_of(WHISPER).state_dict()
    assert all(torch.equal(loaded[name], wanted[name]) for name in wanted)
    assert source.where("encoder.conv1.bias").endswith(f"{prefix}encoder.conv1.bias")
    assert len(source.sha256()) == 1


def test_a_whisper_snapshot_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = whisper_folder(tmp_path / "w", pickled=False, activation_function="relu")
    with pytest.raises(CheckpointError, match="activation_function: expected gelu, got relu"):
        open_whisper(folder)
    (folder / "config.json").write_text('{"d_model": 24}')
    with pytest.raises(CheckpointError, match="lacks a size"):
        open_whisper(folder)
    with pytest.raises(CheckpointError, match=r"config\.json: cannot be read"):
        open_whisper(tmp_path)
    save_file({"decoder.a": np.ones(2, np.float32)}, whisper_folder(folder, pickled=False) / "model.safetensors")
    with pytest.raises(CheckpointError, match="no tensor of Whisper's encoder"):
        open_whisper(folder)
