"""Every official format with all of its tensors, at a reduced width: from the stand-in to graphs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from heartvoice.config.presets import SEPARATORS, Preset
from heartvoice.export.repository import export_repository
from heartvoice.export.weights import official_weights
from heartvoice.runtime.networks import LocalNetworks
from heartvoice.runtime.repository import Repository
from heartvoice.weights import catalogue
from tests.fakes.hub import serving
from tests.integration.weights.test_release import publish
from tests.support.hub import alone_with_the_hub
from tests.support.published import pull, verify
from tests.support.releases import ASSETS, NARROW, PRESET, Release, write_release

pytestmark = pytest.mark.timeout(900)


def official(name: str) -> dict[str, Any]:
    names: dict[str, Any] = json.loads((ASSETS / f"{name}_state_dict.json").read_text())
    return names


def safetensors(folder: Path) -> set[str]:
    names: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "np") as file:
            assert not names & set(file.keys())
            names |= set(file.keys())
    return names


def plain(path: Path, *keys: str) -> Iterable[str]:
    value = torch.load(path, weights_only=True)
    for key in keys:
        value = value[key]
    return (name.removeprefix("module.") for name in value)


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights folder after `weights pull` of a narrow release."""
    folder = tmp_path_factory.mktemp("formats")
    write_release(folder / "release", NARROW)
    weights = folder / "weights"
    with pytest.MonkeyPatch.context() as patched, serving() as hub:
        alone_with_the_hub(patched, folder / "home")
        patched.setattr(catalogue, "WEIGHTS", publish(hub, folder / "release"))
        result = pull(hub, weights, arguments=("--yes-gpl",))
        assert result.exit_code == 0, result.stderr
        assert pull(hub, weights, "ecapa", "wavlm-sv").exit_code == 0
        assert verify(weights).exit_code == 0
    return weights


def test_narrow_release_has_every_official_tensor(pulled: Path) -> None:
    assert safetensors(pulled / "HeartMuLa-oss-3B") == set(official("heartmula_3b"))
    assert safetensors(pulled / "HeartCodec-oss") == set(official("heartcodec"))
    assert set(plain(pulled / "rmvpe" / "rmvpe.pt")) == set(official("rmvpe"))
    assert set(plain(pulled / "campplus" / "campplus_cn_common.bin")) == set(official("campplus"))
    assert set(plain(pulled / "ecapa" / "embedding_model.ckpt")) == set(official("ecapa"))
    assert set(plain(pulled / "bigvgan" / "bigvgan_generator.pt", "generator")) == set(official("bigvgan_44k"))
    (checkpoint,) = (pulled / "seed-vc").glob("*.pth")
    for part, names in official("seed_vc_dit")["net"].items():
        assert set(plain(checkpoint, "net", part)) == set(names)


def test_every_official_format_becomes_a_graph(pulled: Path, tmp_path: Path) -> None:
    opened = official_weights(pulled, preset_of(NARROW))
    assert opened.preset.lm == NARROW.lm
    assert opened.preset.codec == NARROW.codec
    assert opened.preset.svc == NARROW.svc
    root = tmp_path / "repository"
    export_repository(opened, root)  # each graph is compared with its module
    repository = Repository(root)
    assert not any(repository.is_random(network) for network in repository.index["origins"] if network != "speaker")
    for model in (path.parent.parent.name for path in root.glob("*/1/model.onnx")):
        LocalNetworks(repository, threads=1).load(model)


def preset_of(release: Release) -> Preset:
    """What a release is exported as.

    With one separator: onnxruntime opens a graph in the square of its nodes, the bag's four at this depth in 40 s. The
    bag is in `test_release`.
    """
    svc = replace(PRESET.svc, dit=replace(PRESET.svc.dit, style_dim=release.style.embedding))
    return replace(
        PRESET, separator=SEPARATORS["htdemucs"], f0=release.f0, style=release.style, svc=svc, max_positions=256
    )
