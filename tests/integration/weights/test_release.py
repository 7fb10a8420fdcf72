"""From the stand-in to the export: a whole release under the official names, at a reduced width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from heartvoice.config.presets import SeparatorConfig
from heartvoice.config.roformer import ROFORMERS
from heartvoice.export.layout import graph_models
from heartvoice.export.parity import Reference
from heartvoice.export.parity_targets import target_of
from heartvoice.export.weights import official_weights
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.weights import catalogue
from heartvoice.weights.catalogue import WeightSet
from heartvoice.weights.lock import LOCK
from tests.fakes.hub import HubServer
from tests.support.published import named, on_disk, plain_demucs, pull, verify
from tests.support.releases import CODEC, LM, PRESET, ROFORMER, SVC, write_release
from tests.support.separator_files import FT, SMALLEST, package_of, write_th

SEPARATOR = replace(SMALLEST, t_layers=1, dconv_mode=1, dconv_depth=1)
"""Four of it have a graph that opens in seconds."""
LICENCES = {"seed-vc": "gpl-3.0", "bigvgan": "mit", "rmvpe": "mit"}
OTHERS = {"README.md": b"a card", ".gitattributes": b"", "pytorch_model.bin": b"the same in another format"}
"""What repositories hold besides."""


def publish(hub: HubServer, release: Path) -> tuple[WeightSet, ...]:
    """Every set on the stand-in; returns the catalogue without the hashes of the real files."""
    sets = [each for each in catalogue.WEIGHTS if not each.on_request or (release / each.folder).is_dir()]
    for each in sets:
        if each.on_hub:
            folder = release if each.folder == "." else release / each.folder
            files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
            hub.publish(each.origin, OTHERS | official_names(each, files), LICENCES.get(each.name, "apache-2.0"))
    networks = {path.name.partition("-")[0]: path.read_bytes() for path in (release / "demucs").iterdir()}
    demucs = plain_demucs(hub, networks)
    return tuple(replace(each, known={}) if each.on_hub else demucs for each in sets)


def official_names(weights: WeightSet, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The release has names of its own where there is one file of a kind."""
    by_suffix = {Path(name).suffix: name for name in weights.files if "*" not in name}
    only = {".pth", ".yml"}
    return {by_suffix[Path(name).suffix] if Path(name).suffix in only else name: files[name] for name in files}


def test_pulled_release_is_what_the_export_reads(
    hub: HubServer, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 20)
    release = tmp_path / "release"
    write_release(release)
    for path in (release / "demucs").iterdir():
        path.unlink()
    for seed, signature in enumerate(FT):
        write_th(release / "demucs", signature, package_of(SEPARATOR, seed))
    monkeypatch.setattr(catalogue, "WEIGHTS", publish(hub, release))

    result = pull(hub, weights, arguments=("--yes-gpl",))
    assert result.exit_code == 0, result.stderr
    for name in ("ecapa", "wavlm-sv", "bs_roformer"):
        assert not (weights / name).exists()  # on request
        assert pull(hub, weights, name).exit_code == 0
    assert verify(weights).exit_code == 0

    preset = replace(PRESET, separator=SeparatorConfig(n_models=4))
    opened = official_weights(weights, preset)
    assert (opened.preset.lm, opened.preset.codec, opened.preset.svc) == (LM, CODEC, SVC)
    assert opened.preset.separator == replace(SEPARATOR, n_models=4, overlap=SeparatorConfig().overlap)
    assert (weights / LOCK).is_file()
    assert len(on_disk(weights)) == len([path for path in release.rglob("*") if path.is_file()])
    assert [file for file in on_disk(weights) if file.startswith("seed-vc")] == sorted(
        f"seed-vc/{name}" for name in named("seed-vc").files
    )

    roformer = official_weights(weights, replace(PRESET, separator=ROFORMERS["bs_roformer"]))
    assert roformer.preset.separator == ROFORMER
    assert roformer.licences["separator"].startswith("unknown")

    (model,) = (model for model in graph_models(opened.preset).values() if model.network == "separator")
    target, source = target_of(model), opened.source("separator")
    path = tmp_path / model.name / "1" / GRAPH_FILE
    path.parent.mkdir(parents=True)
    write_graph(target.build(opened.preset, source, "fp32"), path.parent)
    summary = Reference(opened.preset, "separator", source).compare(target, path, "fp32")  # all four of the bag
    assert summary["compared"] == "whole"
