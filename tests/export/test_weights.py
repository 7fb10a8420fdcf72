"""Official releases: a folder like theirs, with other sizes, single files and shards."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from heartvoice.checkpoints import Checkpoint, manifest, random_checkpoint
from heartvoice.errors import CheckpointError
from heartvoice.export import layout
from heartvoice.export.decoder_graph import build_heartcodec_decoder
from heartvoice.export.drift import repository_drift
from heartvoice.export.repository import export_repository
from heartvoice.export.tokenizer_file import byte_tokenizer
from heartvoice.export.weights import official_weights
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.presets import PRESETS, GenerationIds
from heartvoice.repository import Repository
from tests.export.graphs import TINY

LM = replace(TINY.lm, muq_dim=24, backbone=replace(TINY.lm.backbone, num_layers=2, max_seq_len=512))
CODEC = replace(TINY.codec, num_layers=1)
IDS = {"text_bos_id": 310, "text_eos_id": 311, "audio_eos_id": 258}


def shards(folder: Path, sizes: Any, n_shards: int, *, old_weight_norm: bool = False) -> None:
    """Write random weights with their config.json, as one file or several."""
    source = random_checkpoint(sizes, 5)
    tensors = {name: source.array(name) for name in manifest(sizes)}
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


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("release")
    shards(root / "HeartMuLa-oss-3B", LM, 3)
    shards(root / "HeartCodec-oss", CODEC, 1, old_weight_norm=True)
    (root / "tokenizer.json").write_text(byte_tokenizer(320))
    (root / "gen_config.json").write_text(json.dumps(IDS))
    return root


def test_release_is_exported_with_its_own_sizes(release: Path, tmp_path: Path) -> None:
    weights = official_weights(release, PRESETS["oss-3b"])
    root = tmp_path / "oss"
    export_repository(weights, root)
    repository = Repository(root)
    assert repository.preset == replace(
        PRESETS["oss-3b"], lm=LM, codec=CODEC, ids=GenerationIds(**IDS), max_positions=512
    )
    assert not repository.random_weights
    for name in ("tokenizer.json", "gen_config.json"):
        assert (root / "heartmula" / "1" / name).read_bytes() == (release / name).read_bytes()
    files = {path.name: layout.sha256(path) for path in release.rglob("*.safetensors")}
    assert repository.index["sources"]["lm"] == {name: sha for name, sha in files.items() if "of-00003" in name}
    assert repository.index["sources"]["codec"] == {"model.safetensors": files["model.safetensors"]}
    assert str(release) not in (root / "repository.json").read_text()
    assert repository_drift(root) == []
    config = (root / "heartmula_step" / "config.pbtxt").read_text()
    assert "k_past_1" in config
    assert "k_past_2" not in config
    results = export_repository(official_weights(release, PRESETS["oss-3b"]), root)
    assert not any(result.written for result in results)


def test_same_values_give_the_same_graph_however_they_are_stored(release: Path, tmp_path: Path) -> None:
    shards(tmp_path / "sharded", CODEC, 2)
    graphs = []
    for index, folder in enumerate((release / "HeartCodec-oss", tmp_path / "sharded")):
        (tmp_path / str(index)).mkdir()
        write_graph(build_heartcodec_decoder(CODEC, Checkpoint.open(folder)), tmp_path / str(index))
        graphs.append((tmp_path / str(index) / GRAPH_FILE).read_bytes())
    assert graphs[0] == graphs[1]


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
    ],
)
def test_release_that_does_not_fit_is_refused(change: Any, message: str, release: Path, tmp_path: Path) -> None:
    root = tmp_path / "release"
    for path in release.rglob("*"):
        if path.is_file():
            (root / path.relative_to(release)).parent.mkdir(parents=True, exist_ok=True)
            (root / path.relative_to(release)).write_bytes(path.read_bytes())
    change(root)
    with pytest.raises(CheckpointError, match=message):
        official_weights(root, PRESETS["oss-3b"])


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_damaged_value_is_refused_by_file_and_name(release: Path, tmp_path: Path) -> None:
    root = tmp_path / "release"
    shards(root / "HeartMuLa-oss-3B", LM, 1)
    shards(root / "HeartCodec-oss", CODEC, 1)
    path = root / "HeartCodec-oss" / "model.safetensors"
    source = random_checkpoint(CODEC, 5)
    tensors = {name: source.array(name) for name in manifest(CODEC)}
    tensors["flow_matching.cond_feature_emb.bias"][3] = np.inf
    save_file(tensors, path)
    for name in ("tokenizer.json", "gen_config.json"):
        (root / name).write_bytes((release / name).read_bytes())
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: flow_matching\.cond_feature_emb\.bias: .*not finite"
    ):
        export_repository(official_weights(root, PRESETS["oss-3b"]), tmp_path / "r", only=["heartcodec_condition"])
