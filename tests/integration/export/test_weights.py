"""Official releases: a folder like theirs, with other sizes, single files and shards."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import save_file

from heartvoice.checkpoints.official import SONG_LICENCE, SPEAKER_LICENCES
from heartvoice.config.presets import PRESETS, SPEAKERS, TRAINED_CONVERTERS, CampplusConfig, GenerationIds
from heartvoice.contracts.network_names import NETWORKS
from heartvoice.errors import CheckpointError
from heartvoice.export import layout
from heartvoice.export.check import repository_drift
from heartvoice.export.decoder_graph import build_heartcodec_decoder
from heartvoice.export.repository import export_repository
from heartvoice.export.weights import official_weights, song_weights
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.models.load import Checkpoint
from heartvoice.runtime.repository import FORMAT, INDEX, MANIFEST, Repository
from tests.support.releases import (
    CODEC,
    ECAPA,
    IDS,
    LM,
    PRESET,
    STYLE,
    SVC,
    WAVLM,
    seed_vc_config,
    shards,
    tensors_of,
    write_release,
    write_wavlm,
)
from tests.support.separator_files import SMALLEST

GPL = {"svc_regulator", "svc_flow"}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("release")
    write_release(root)
    return root


def test_release_is_exported_with_its_own_sizes(release: Path, tmp_path: Path) -> None:
    root = tmp_path / "oss"
    export_repository(official_weights(release, PRESET), root)
    repository = Repository(root)
    assert repository.preset == replace(
        PRESET, lm=LM, codec=CODEC, ids=GenerationIds(**IDS), max_positions=512, separator=SMALLEST, svc=SVC
    )
    assert not repository.random_weights
    for name in ("tokenizer.json", "gen_config.json"):
        assert (root / "heartmula" / "1" / name).read_bytes() == (release / name).read_bytes()
    assert str(release) not in (root / "repository.json").read_text()
    assert repository_drift(root) == []
    config = (root / "heartmula_step" / "config.pbtxt").read_text()
    assert "k_past_1" in config
    assert "k_past_2" not in config
    check_sources(repository, release)
    check_licences(repository)
    results = export_repository(official_weights(release, PRESET), root)
    assert not any(result.written for result in results)


def check_sources(repository: Repository, release: Path) -> None:
    """Every network's graph names the files that it is made from, by their hashes."""
    folders = {
        "lm": "HeartMuLa-oss-3B/*.safetensors", "codec": "HeartCodec-oss/*.safetensors", "separator": "demucs/*.th",
        "f0": "rmvpe/*", "svc_content": "whisper-small/*.safetensors", "svc_regulator": "seed-vc/*.pth",
        "svc_cfm": "seed-vc/*.pth", "svc_style": "campplus/*", "vocoder": "bigvgan/*.pt",
    }  # fmt: skip
    sources = repository.index["sources"]
    assert set(folders) == set(NETWORKS) - {"speaker"}  # that is Resemblyzer's, out of its wheel
    for network, pattern in folders.items():
        assert sources[network] == {path.name: layout.sha256(path) for path in release.glob(pattern)}
    about = repository.about(*NETWORKS)
    assert about["hashes"] == sources
    assert about["licences"].keys() == about["models"].keys() == set(NETWORKS)
    assert (about["models"]["lm"], about["models"]["svc_cfm"]) == ("HeartMuLa-oss-3B", "Seed-VC")
    assert (about["licences"]["lm"], about["licences"]["svc_cfm"]) == ("Apache-2.0", "GPL-3.0")
    assert about["models"]["speaker"].startswith("Resemblyzer")


def check_licences(repository: Repository) -> None:
    """Manifests say whose terms hold for the graph."""
    for name, model in layout.graph_models(repository.preset).items():
        licence = json.loads((repository.root / name / MANIFEST).read_text())["licence"]
        assert licence == repository.index["licences"].get(model.network)
        assert str(licence).startswith("GPL-3.0") == (name in GPL)


def test_same_values_give_the_same_graph_however_they_are_stored(release: Path, tmp_path: Path) -> None:
    shards(tmp_path / "sharded", CODEC, 2)
    graphs = []
    for index, folder in enumerate((release / "HeartCodec-oss", tmp_path / "sharded")):
        (tmp_path / str(index)).mkdir()
        write_graph(build_heartcodec_decoder(CODEC, Checkpoint.open(folder)), tmp_path / str(index))
        graphs.append((tmp_path / str(index) / GRAPH_FILE).read_bytes())
    assert graphs[0] == graphs[1]


def test_weights_of_songs_alone_take_the_rest_published_or_random(release: Path, tmp_path: Path) -> None:
    weights = song_weights(release, PRESETS["tiny"], 5)
    assert weights.preset == replace(PRESETS["tiny"], lm=LM, codec=CODEC, ids=GenerationIds(**IDS), max_positions=512)
    for network, file in (("lm", "HeartMuLa-oss-3B"), ("codec", "HeartCodec-oss")):
        assert weights.origin_of(network) == "tiny weights: a small procedural world, not HeartMuLa's"  # type: ignore[arg-type]
        assert set(weights.hashes(network)) == {path.name for path in (release / file).glob("*.safetensors")}  # type: ignore[arg-type]
    assert "spleeter" in weights.origin_of("separator")
    assert weights.hashes("svc_cfm") == {"random": "random seed=5"}
    assert weights.summary == f"{weights.origin_of('lm')}; the rest: random seed=5"
    assert weights.tokenizer() == (release / "tokenizer.json").read_text()
    assert weights.gen_config == (release / "gen_config.json").read_text()
    root = shutil.copytree(release, tmp_path / "release")
    edit(root / "HeartCodec-oss/config.json", num_layers=2)
    with pytest.raises(CheckpointError, match=r"missing .*transformer_blocks\.1"):
        song_weights(root, PRESETS["tiny"], 5)


def test_weights_of_songs_have_a_trained_converter_if_the_folder_has_one(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRAINED_CONVERTERS, "tiny", (SVC, PRESET.style))
    weights = song_weights(release, PRESETS["tiny"], 5)
    assert (weights.preset.svc, weights.preset.style) == (SVC, PRESET.style)
    for network in ("svc_content", "svc_regulator", "svc_cfm", "svc_style", "vocoder"):
        assert weights.origin_of(network) == "tiny weights: a small procedural world, not HeartMuLa's"
        assert weights.licences[network] == SONG_LICENCE
    assert "spleeter" in weights.origin_of("separator")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "tokenizer.json").unlink(), "tokenizer.json: cannot be read"),
        (lambda root: (root / "gen_config.json").write_text("[]"), "gen_config.json: expected a JSON object"),
        (lambda root: (root / "HeartMuLa-oss-7B").mkdir(), "found HeartMuLa-oss-3B, HeartMuLa-oss-7B"),
        (
            lambda root: edit(root / "HeartMuLa-oss-3B/config.json", muq_dim=25),
            r"muq_linear.weight: expected \[64, 25\]",
        ),
        (lambda root: edit(root / "HeartCodec-oss/config.json", num_layers=2), "missing .*transformer_blocks.1"),
        (lambda root: edit(root / "HeartCodec-oss/config.json", in_channels=1), "in_channels must be"),
        (
            lambda root: edit(root / "HeartMuLa-oss-3B/config.json", audio_vocab_size=260),
            "disagree on the codebook size",
        ),
        (lambda root: shutil.rmtree(root / "demucs"), "demucs: expected one of 955717e8.safetensors"),
        (lambda root: shutil.rmtree(root / "rmvpe"), r"rmvpe\.pt: no such file"),
        (lambda root: shutil.rmtree(root / "campplus"), r"campplus_cn_common\.bin: no such file"),
        (lambda root: shutil.rmtree(root / "bigvgan"), r"bigvgan/config\.json: cannot be read"),
        (lambda root: shutil.rmtree(root / "whisper-small"), r"whisper-small/config\.json: cannot be read"),
        (lambda root: shutil.rmtree(root / "seed-vc"), r"seed-vc: expected one \*\.pth and its \*\.yml, found none"),
        (lambda root: (root / "seed-vc/b.pth").touch(), r"seed-vc: .* found DiT_small_f0_44k\.pth, b\.pth"),
        (lambda root: (root / "seed-vc/config_small.yml").write_text("{"), r"config_small\.yml: cannot be read"),
        (lambda root: (root / "seed-vc/config_small.yml").write_text("a: 1"), "expected an entry model_params"),
        (
            lambda root: edit(root / "whisper-small/config.json", d_model=18),
            "seed-vc, whisper-small and bigvgan do not belong together: Whisper's width",
        ),
        (
            lambda root: edit(root / "whisper-small/config.json", encoder_layers=2),
            r"model\.safetensors: missing encoder\.layers\.1",
        ),
    ],
)
def test_release_that_does_not_fit_is_refused(change: Any, message: str, release: Path, tmp_path: Path) -> None:
    root = shutil.copytree(release, tmp_path / "release")
    change(root)
    with pytest.raises(CheckpointError, match=message):
        official_weights(root, PRESET)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("preprocess_params", {"sr": 22050}, r"preprocess_params\.sr: expected 44100, got 22050"),
        ("spect_params", {"hop_length": 256}, r"spect_params\.hop_length: expected 512, got 256"),
        ("spect_params", {"fmax": 8000}, r"spect_params\.fmax: expected None, got 8000"),
        ("DiT", {"depth": 4}, r"layers\.3\.attention\.wqkv\.weight: expected \[96, 32\], got \[1\]"),
        ("DiT", {"in_channels": 10}, "estimator and vocoder disagree"),
        ("style_encoder", {"dim": 21}, "disagree on the style's width"),
        ("length_regulator", {"n_f0_bins": 255}, r"f0_embedding\.weight: expected \[255, 24\]"),
    ],
)
def test_flow_of_another_kind_is_refused(
    section: str, changes: dict[str, Any], message: str, release: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(release, tmp_path / "release")
    config = seed_vc_config()
    sections = {**config, **config["preprocess_params"], **config["model_params"]}
    sections[section] |= changes
    (root / "seed-vc/config_small.yml").write_text(yaml.safe_dump(config))
    with pytest.raises(CheckpointError, match=message):
        official_weights(root, PRESET)


def test_flow_without_a_configuration_has_the_presets_sizes(release: Path, tmp_path: Path) -> None:
    root = shutil.copytree(release, tmp_path / "release")
    (root / "seed-vc/config_small.yml").unlink()
    assert official_weights(root, replace(PRESET, svc=SVC)).preset.svc == SVC
    with pytest.raises(CheckpointError, match="do not belong together"):
        official_weights(root, PRESET)


def test_flow_whose_tensors_are_damaged_is_named(release: Path, tmp_path: Path) -> None:
    root = shutil.copytree(release, tmp_path / "release")
    path = root / "seed-vc/DiT_small_f0_44k.pth"
    value = torch.load(path)
    del value["net"]["length_regulator"]["module.f0_embedding.weight"]
    torch.save(value, path)
    with pytest.raises(CheckpointError, match=r"DiT_small_f0_44k\.pth: missing f0_embedding\.weight"):
        official_weights(root, PRESET)


def test_both_encoders_may_be_the_same_file(release: Path) -> None:
    weights = official_weights(release, replace(PRESET, speaker=STYLE))
    assert isinstance(weights.preset.speaker, CampplusConfig)
    assert weights.hashes("speaker") == weights.hashes("svc_style")
    assert weights.licences["speaker"] == weights.licences["svc_style"]
    assert weights.origin_of("speaker") == "official"


def test_ecapa_is_read_where_the_preset_names_it(release: Path) -> None:
    weights = official_weights(release, replace(PRESET, speaker=ECAPA))
    assert weights.preset.speaker == ECAPA
    assert list(weights.hashes("speaker")) == ["embedding_model.ckpt"]
    assert weights.licences["speaker"] == SPEAKER_LICENCES["ecapa"]
    assert weights.origin_of("speaker") == "official"


@pytest.mark.parametrize("normalise", [False, True])
def test_wavlm_has_the_sizes_and_the_normalisation_of_its_files(normalise: bool, release: Path, tmp_path: Path) -> None:
    root = shutil.copytree(release, tmp_path / "release")
    write_wavlm(root / "wavlm-base-plus-sv", replace(WAVLM, do_normalize=normalise))
    weights = official_weights(root, replace(PRESET, speaker=SPEAKERS["wavlm"]))
    assert weights.preset.speaker == replace(WAVLM, do_normalize=normalise)
    assert list(weights.hashes("speaker")) == ["pytorch_model.bin"]
    assert weights.licences["speaker"].startswith("CC BY-SA 3.0, share-alike")


def test_damaged_value_is_refused_by_file_and_name(release: Path, tmp_path: Path) -> None:
    root = shutil.copytree(release, tmp_path / "release")
    path = root / "HeartCodec-oss" / "model.safetensors"
    tensors = tensors_of(CODEC)
    tensors["flow_matching.cond_feature_emb.bias"][3] = np.inf
    save_file(tensors, path)
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: flow_matching\.cond_feature_emb\.bias: .*not finite"
    ):
        export_repository(official_weights(root, PRESET), tmp_path / "r", only=["heartcodec_condition"])


def test_style_of_another_width_than_the_flows_is_refused() -> None:
    with pytest.raises(ValueError, match="tiny: style encoder and converter disagree on the style's width"):
        replace(PRESETS["tiny"], style=CampplusConfig())


@pytest.mark.parametrize("name", PRESETS)
def test_preset_comes_back_from_its_index(name: str, tmp_path: Path) -> None:
    preset = PRESETS[name]
    (tmp_path / INDEX).write_text(layout.to_json({"format": FORMAT, "preset": name, "sizes": layout.sizes(preset)}))
    assert Repository(tmp_path).preset == preset
