"""Writes the official weights' files with reduced sizes and random values, in each publisher's layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.numpy import save_file

from heartvoice.checkpoints.bigvgan import RandomBigvgan
from heartvoice.checkpoints.safetensors_reader import canonical
from heartvoice.config.presets import (
    PRESETS,
    SEPARATORS,
    CampplusConfig,
    EcapaConfig,
    HeartCodecConfig,
    HeartMuLaConfig,
    Preset,
    RmvpeConfig,
    RoformerConfig,
    SeparatorConfig,
    TransformerConfig,
    WavlmConfig,
)
from heartvoice.config.svc import BigvganConfig, DitConfig, RegulatorConfig, SvcConfig, WhisperConfig
from heartvoice.export.tokenizer_file import byte_tokenizer
from heartvoice.models.bigvgan import bigvgan_manifest
from heartvoice.models.load import AnyConfig, manifest, random_checkpoint
from tests.support.separator_files import SMALLEST, package_of, write_th
from tests.support.vocoders import weight_norm_names, write_config

ASSETS = Path(__file__).parents[1] / "assets"
TINY = PRESETS["tiny"]
LM = replace(TINY.lm, muq_dim=24, backbone=replace(TINY.lm.backbone, num_layers=2, max_seq_len=512))
CODEC = replace(TINY.codec, num_layers=1)
IDS = {"text_bos_id": 310, "text_eos_id": 311, "audio_eos_id": 258}
F0 = RmvpeConfig(n_blocks=1, en_de_layers=2, inter_layers=1, en_out_channels=4, gru_hidden=16)
ECAPA = EcapaConfig(channels=(16, 16, 16, 16, 24), attention_channels=8, lin_neurons=192, se_channels=8)
ROFORMER = RoformerConfig(
    bands=((0, 1), (2, 4), (5, 16)), dim=8, depth=1, dim_head=4, heads=2, stft_n_fft=32, stft_hop_length=8,
    chunk_size=64,
)  # fmt: skip
WAVLM = WavlmConfig(
    conv_dim=(8,) * 7, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
    num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, num_buckets=32, max_bucket_distance=80,
    tdnn_dim=(16, 16, 16, 16, 24), xvector_output_dim=192,
)  # fmt: skip
STYLE = CampplusConfig(embedding=20, head_channels=4, init_channels=16, growth=4, bottleneck=16, blocks=(2, 1, 2))
SVC = SvcConfig(
    whisper=WhisperConfig(d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=32),
    regulator=RegulatorConfig(channels=24, in_channels=16, n_stages=2),
    dit=DitConfig(hidden_dim=32, num_heads=2, depth=3, in_channels=8, content_dim=24, style_dim=20),
    vocoder=BigvganConfig(
        num_mels=8, upsample_rates=(16, 8, 4), upsample_kernel_sizes=(32, 16, 8), upsample_initial_channel=16,
        resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3),),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Release:
    """The networks of a release."""

    lm: HeartMuLaConfig
    codec: HeartCodecConfig
    separator: SeparatorConfig
    f0: RmvpeConfig
    style: CampplusConfig
    svc: SvcConfig


REDUCED = Release(LM, CODEC, SMALLEST, F0, STYLE, SVC)
"""Reduced in width and depth."""
NARROW = Release(
    replace(
        TINY.lm, muq_dim=24,
        backbone=TransformerConfig(28, 4, 2, 32, 64, 512), decoder=TransformerConfig(3, 2, 1, 32, 48, 512),
    ),
    replace(TINY.codec, num_layers=24, num_layers_2=6),
    replace(SMALLEST, depth=4, nfft=2048, t_layers=5),
    RmvpeConfig(en_out_channels=2, gru_hidden=8),
    CampplusConfig(embedding=20, head_channels=4, init_channels=16, growth=4, bottleneck=16),
    SvcConfig(
        whisper=WhisperConfig(d_model=16, encoder_attention_heads=2, encoder_ffn_dim=32),
        regulator=RegulatorConfig(channels=24, in_channels=16),
        dit=DitConfig(hidden_dim=32, num_heads=2, in_channels=8, content_dim=24, style_dim=20),
        vocoder=BigvganConfig(num_mels=8, upsample_initial_channel=128),
    ),
)  # fmt: skip
"""Reduced in width only: it has every tensor of the official files."""
OTHER_SVC = replace(TINY.svc, dit=replace(TINY.svc.dit, style_dim=STYLE.embedding))
PRESET: Preset = replace(PRESETS["oss-3b"], separator=SEPARATORS["htdemucs"], f0=F0, style=STYLE, svc=OTHER_SVC)
"""Preset for exporting a reduced release: sizes that no file states are right, all others are wrong."""
Tensors = dict[str, np.ndarray]


def tensors_of(sizes: AnyConfig) -> Tensors:
    source = random_checkpoint(sizes, 5)
    return {name: source.array(name) for name in manifest(sizes)}


def shards(folder: Path, sizes: Any, n_shards: int, *, old_weight_norm: bool = False) -> None:
    """Write random weights with their config.json, as one file or several."""
    tensors = tensors_of(sizes)
    if old_weight_norm:
        spelled = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
        for new, old in spelled.items():
            tensors = {name.replace(new, old): value for name, value in tensors.items()}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "any", **asdict(sizes)}))
    if n_shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return
    names = sorted(tensors)
    files = {name: f"model-{index % n_shards + 1:05}-of-{n_shards:05}.safetensors" for index, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in names if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


def write_release(root: Path, release: Release = REDUCED) -> None:
    """Write all files that `official_weights` reads."""
    shards(root / "HeartMuLa-oss-3B", release.lm, 3)
    shards(root / "HeartCodec-oss", release.codec, 1, old_weight_norm=release is REDUCED)  # both spellings are read
    (root / "tokenizer.json").write_text(byte_tokenizer(320))
    (root / "gen_config.json").write_text(json.dumps(IDS))
    write_voice_path(root, release)


def write_voice_path(root: Path, release: Release = REDUCED) -> None:
    """Write separators, F0, style encoder, ECAPA, WavLM and converter."""
    write_th(root / "demucs", "955717e8", package_of(release.separator))
    _save(root / "rmvpe" / "rmvpe.pt", {name: value.half() for name, value in _torch(tensors_of(release.f0)).items()})
    _save(root / "campplus" / "campplus_cn_common.bin", _torch(tensors_of(release.style)))
    _save(root / "ecapa" / "embedding_model.ckpt", _torch(tensors_of(ECAPA)))
    write_wavlm(root / "wavlm-base-plus-sv")
    write_roformer(root / "bs_roformer" / "model_bs_roformer_ep_317_sdr_12.9755.ckpt")
    write_seed_vc(root / "seed-vc", release.svc)
    write_whisper(root / "whisper-small", release.svc.whisper)
    write_bigvgan(root / "bigvgan", release.svc.vocoder)


def write_wavlm(folder: Path, sizes: WavlmConfig = WAVLM, **preprocessor: Any) -> None:
    """Write a WavLM x-vector model with what it was trained by, and its two configurations."""
    tensors = tensors_of(sizes) | {"objective.weight": np.ones((8, 2), np.float32)}
    spelled = {name.replace("parametrizations.weight.original0", "weight_g"): value for name, value in tensors.items()}
    named = {name.replace("parametrizations.weight.original1", "weight_v"): value for name, value in spelled.items()}
    _save(folder / "pytorch_model.bin", _torch(named))
    config = {name: value for name, value in asdict(sizes).items() if name not in ("engine", "do_normalize")}
    (folder / "config.json").write_text(json.dumps({"hidden_act": "gelu", "use_weighted_layer_sum": True} | config))
    settings = {"do_normalize": sizes.do_normalize, "sampling_rate": 16_000} | preprocessor
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def write_roformer(path: Path) -> None:
    """Write `ROFORMER` with its configuration beside it."""
    _save(path, _torch(tensors_of(ROFORMER)))
    model = {
        "dim": ROFORMER.dim, "depth": ROFORMER.depth, "dim_head": ROFORMER.dim_head, "heads": ROFORMER.heads,
        "num_stems": 1, "freqs_per_bands": (2, 3, 12), "stft_n_fft": 32, "stft_hop_length": 8,
    }  # fmt: skip
    sections = {"model": model, "audio": {"chunk_size": 64}, "training": {"target_instrument": "vocals"}}
    path.with_suffix(".yaml").write_text(yaml.dump(sections))


def write_seed_vc(folder: Path, svc: SvcConfig = SVC) -> None:
    """Write the .pth with unused tensors and training state, and its .yml."""
    cfm, regulator = _torch(tensors_of(svc.dit)), _torch(tensors_of(svc.regulator))
    published = json.loads((ASSETS / "seed_vc_dit_state_dict.json").read_text())["net"]
    cfm = {name: torch.ones(1) for name in published["cfm"]} | cfm
    regulator = {name: torch.ones(1) for name in published["length_regulator"]} | regulator
    net = {"cfm": cfm, "length_regulator": regulator, "style_encoder": {"w": torch.ones(2)}}
    named = {part: {f"module.{name}": value for name, value in state.items()} for part, state in net.items()}
    _save(folder / "DiT_small_f0_44k.pth", {"net": named, "epoch": 3})
    (folder / "config_small.yml").write_text(yaml.safe_dump(seed_vc_config(svc)))


def seed_vc_config(svc: SvcConfig = SVC) -> dict[str, Any]:
    """Make the configuration of the flow's checkpoint."""
    dit, regulator = svc.dit, svc.regulator
    return {
        "log_dir": "./runs",
        "preprocess_params": {
            "sr": 44100,
            "spect_params": {"n_fft": 2048, "win_length": 2048, "hop_length": 512, "fmin": 0, "fmax": "None"},
        },
        "model_params": {
            "style_encoder": {"dim": dit.style_dim},
            "length_regulator": {
                "channels": regulator.channels, "in_channels": regulator.in_channels, "is_discrete": False,
                "f0_condition": True, "n_f0_bins": regulator.n_f0_bins, "sampling_ratios": [1] * regulator.n_stages,
            },
            "DiT": {
                "hidden_dim": dit.hidden_dim, "num_heads": dit.num_heads, "depth": dit.depth,
                "in_channels": dit.in_channels, "content_dim": dit.content_dim, "style_condition": True,
                "final_layer_type": "mlp", "uvit_skip_connection": True,
            },
        },
    }  # fmt: skip


def write_whisper(folder: Path, sizes: WhisperConfig = SVC.whisper) -> None:
    """Write a snapshot that includes a part of the decoder."""
    folder.mkdir()
    tensors = {f"model.{name}": value for name, value in tensors_of(sizes).items()}
    save_file(tensors | {"model.decoder.layer_norm.weight": np.ones(16, np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(asdict(sizes) | {"activation_function": "gelu"}))


def write_bigvgan(folder: Path, sizes: BigvganConfig = SVC.vocoder) -> None:
    """Write the vocoder with weight norm."""
    names = weight_norm_names(bigvgan_manifest(sizes))
    source = RandomBigvgan(names, 5, sizes)
    _save(folder / "bigvgan_generator.pt", {"generator": _torch({n: source.array(canonical(n)) for n in names})})
    write_config(folder, sizes)


def _torch(tensors: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in tensors.items()}


def _save(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path)
