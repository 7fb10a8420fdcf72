"""CAMPPlus: official names, reference vectors with the official weights, and its behaviour with random ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from heartvoice.config.presets import CampplusConfig
from heartvoice.keyed_random import normal
from heartvoice.models.campplus import Campplus
from heartvoice.models.load import Checkpoint
from heartvoice.models.speaker import open_campplus, speaker_manifest
from tests.support import weights_files
from tests.support.golden_cases import GoldenFolder, assert_close, folder_params
from tests.unit.models.test_campplus import KIND, SMALL, embed, loaded, random_network


def golden_network(folder: GoldenFolder) -> Campplus:
    sizes = CampplusConfig.from_config(folder.config)
    own = folder.path / "weights.safetensors"
    if own.is_file():
        return loaded(sizes, Checkpoint.open(own))
    return loaded(sizes, open_campplus(weights_files.campplus(folder.config["weights_sha256"]), sizes))


@pytest.mark.parametrize("folder", folder_params(KIND))
def test_embeddings_are_the_reference(folder: GoldenFolder) -> None:
    network, io = golden_network(folder), folder.io
    assert_close(embed(network, io["trace.input"]), io["trace.embedding"], 1e-4)
    fbank = io["synthetic.fbank"]
    assert_close(embed(network, (fbank - fbank.mean(axis=0))[None]), io["synthetic.embedding"], 1e-4)


@pytest.mark.parametrize("folder", folder_params(KIND))
def test_every_stage_is_the_reference(folder: GoldenFolder) -> None:
    network, io = golden_network(folder), folder.io
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, inputs, output: seen.__setitem__(name, output)

    stages = {name.split(".", 1)[1].rpartition(".")[0] for name in io if name.endswith(".meanabs")}
    for stage in stages - {"stats", "dense"}:
        network.get_submodule(stage).register_forward_hook(keep(stage))
    dense = network.xvector.dense
    dense.register_forward_hook(keep("dense"))
    dense.register_forward_pre_hook(lambda module, inputs: seen.__setitem__("stats", inputs[0]))
    embed(network, io["trace.input"])
    assert len(stages) >= 4
    for stage in stages:
        values = seen[stage].numpy()
        assert list(values.shape) == list(io[f"trace.{stage}.shape"])
        assert_close(values.reshape(-1)[:16], io[f"trace.{stage}.first16"], 1e-4)
        assert_close(np.abs(values).mean(), io[f"trace.{stage}.meanabs"], 1e-4)


def test_names_and_shapes_are_those_of_the_official_file() -> None:
    path = Path(__file__).parents[2] / "assets/campplus_state_dict.json"
    official = {name: tuple(shape) for name, shape in json.loads(path.read_text()).items()}
    assert speaker_manifest(CampplusConfig()) == official


@pytest.mark.parametrize("sizes", [SMALL, CampplusConfig()], ids=["small", "official"])
def test_random_weights_keep_the_network_alive(sizes: CampplusConfig) -> None:
    network = random_network(sizes)
    one, other = (embed(network, normal(0, "features", n, (1, 150, sizes.n_bands)))[0] for n in range(2))
    assert np.isfinite(one).all()
    assert 0.02 < one.std() < 50
    cosine = float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
    assert cosine < 0.9999
