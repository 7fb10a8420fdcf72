"""Export a preset into a complete model repository.

Graphs are built, written and compared with PyTorch in a sibling folder of the repository. They replace the old graphs
only after all comparisons passed. A graph made from the same weights by the same code is left unchanged.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from heartvoice.checkpoints.official import GENERATION, TOKENIZER
from heartvoice.config.presets import Preset
from heartvoice.contracts.constants import FRAME_HOP, N_CODEBOOKS, SAMPLE_RATE_HZ
from heartvoice.contracts.graphs import CONTENT_POSITION
from heartvoice.contracts.models import HEARTMULA, MODELS, SEPARATOR_GRAPHS, models_with
from heartvoice.contracts.network_names import NETWORKS, Network
from heartvoice.contracts.types import ModelSpec
from heartvoice.errors import ExportError
from heartvoice.export import layout
from heartvoice.export.atomic_repository import Staging, staged
from heartvoice.export.configs import configs, in_folder, model_files
from heartvoice.export.layout import EXTERNAL_BYTES, GraphModel, Precision
from heartvoice.export.weights import OFFICIAL, Weights
from heartvoice.file_errors import write_file
from heartvoice.runtime.repository import FORMAT, GRAPH, INDEX, MANIFEST
from heartvoice.runtime.tensorrt_plans import plan_files

if TYPE_CHECKING:
    from heartvoice.export.parity import Reference

ORT_STEP = "heartmula_step_ort"
_HASHED_BYTES = 64 * 2**20
"""Files up to this size in bytes are hashed before an export is skipped; of larger files the size is compared."""


@dataclass(frozen=True)
class Exported:
    """The outcome of one graph."""

    model: str
    written: bool
    """False: it was up to date."""
    n_bytes: int
    seconds: float = 0.0
    parity: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)
    """Error of quantisation, if the graph is quantised (`quantize_quality.summary`)."""


class Reporter(Protocol):
    """Progress callbacks of an export."""

    def hashing(self, network: Network) -> None:
        """Report that the files of a network's weights are being hashed."""

    def writing(self, model: str, n_bytes: int) -> None:
        """Report that a graph is being written, with its weight bytes."""

    def advance(self, n_bytes: int) -> None:
        """Report the number of bytes just written."""

    def comparing(self, model: str) -> None:
        """Report that the graph is being compared with PyTorch."""

    def done(self, exported: Exported) -> None:
        """Report that the graph is ready."""


class Silent:
    """A reporter without output."""

    def hashing(self, network: Network) -> None:
        """Ignore."""

    def writing(self, model: str, n_bytes: int) -> None:
        """Ignore."""

    def advance(self, n_bytes: int) -> None:
        """Ignore."""

    def comparing(self, model: str) -> None:
        """Ignore."""

    def done(self, exported: Exported) -> None:
        """Ignore."""


def export_repository(
    weights: Weights,
    repository: Path,
    *,
    precision: Precision = "fp32",
    only: Collection[str] = (),
    quantize: str | None = None,
    reporter: Reporter | None = None,
    external_bytes: int = EXTERNAL_BYTES,
) -> list[Exported]:
    """Make a repository complete and up to date.

    Args:
        weights: the preset and its weights.
        repository: created if it is missing; it changes completely or not at all.
        precision: of the graphs' weights and matrix products.
        only: graphs to make; others stay unchanged. Empty means all.
        quantize: make the LM's graph in the `ort` dialect too, with weights of these bits (`quantize.Quantization`);
            None keeps an existing one.
        reporter: progress callbacks.
        external_bytes: weights beyond this size are stored in a separate file.

    Raises:
        ExportError: a graph differs from PyTorch, the error of quantised weights is too large, `only` names no graph or
            does not fit the repository, the folder is no repository, the disk is too small, or another export is
            running.
        CheckpointError: the weights are incomplete or damaged.
    """
    root = repository.resolve()
    graphs = layout.graph_models(weights.preset, quantize or quantized_as(root))
    unknown = [name for name in only if name not in graphs]
    if unknown:
        raise ExportError(f"only: no graph {', '.join(unknown)}; there are {', '.join(graphs)}")
    _check_contract(weights.preset)
    with staged(root) as staging:
        _check_target(root, weights, partial=bool(only))
        job = _Job(weights, root, precision, staging, reporter or Silent(), external_bytes)
        results = [job.graph(model, make=not only or model.name in only) for model in graphs.values()]
        for spec in models_with(weights.preset.separator.engine).values():
            if spec.name not in graphs:
                job.plain(spec)
        staging.commit(job.index(), gone=[name for name in SEPARATOR_GRAPHS if name not in graphs])
        return [result for result in results if result is not None]


def _check_contract(preset: Preset) -> None:
    """Refuse sizes that differ from the contracts' constants."""
    lm, codec, whisper = preset.lm, preset.codec, preset.svc.whisper
    for what, got, expected in (
        ("audio_num_codebooks", lm.audio_num_codebooks, N_CODEBOOKS),
        ("num_bands", codec.num_bands, 1),
        ("sample_rate", codec.sample_rate, SAMPLE_RATE_HZ),
        ("samples of a frame", codec.frame_hop, FRAME_HOP),
        ("max_source_positions", whisper.max_source_positions, CONTENT_POSITION.max),
    ):
        if got != expected:
            raise ExportError(f"{what}: expected {expected}, got {got}")


def _check_target(root: Path, weights: Weights, *, partial: bool) -> None:
    """Refuse a folder that is no repository, and a partial export that does not fit the rest."""
    known = {*MODELS, *layout.graph_models(weights.preset), INDEX}
    foreign = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    if foreign and not known & set(foreign):
        raise ExportError(f"{root}: holds {', '.join(foreign[:5])} and is no model repository; choose another folder")
    index = read_json(root / INDEX)
    if partial and index and (index.get("preset"), index.get("weights")) != (weights.preset.name, weights.summary):
        raise ExportError(
            f"{root}: holds preset {index.get('preset')!r} with weights {index.get('weights')!r}; "
            f"export all of {weights.preset.name!r} ({weights.summary}), or choose another folder"
        )


def quantized_as(root: Path) -> str | None:
    """Return the quantisation of a repository's LM graph in the `ort` dialect; None without that graph."""
    folder = root / ORT_STEP
    return str(read_json(folder / MANIFEST).get("quantize", "none")) if folder.is_dir() else None


def read_json(path: Path) -> dict[str, Any]:
    """Read a manifest or index; empty if it is missing or damaged, so it is out of date."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


class _Job:
    """One export."""

    def __init__(
        self,
        weights: Weights,
        root: Path,
        precision: Precision,
        staging: Staging,
        reporter: Reporter,
        external_bytes: int,
    ) -> None:
        self.weights, self.root, self.precision = weights, root, precision
        self.staging, self.reporter, self.external_bytes = staging, reporter, external_bytes
        self.manifests: dict[str, dict[str, Any]] = {}
        self._hashes: dict[Network, dict[str, str]] = {}
        self._reference: tuple[Network, Reference] | None = None

    def hashes(self, network: Network) -> dict[str, str]:
        """Return the identity of a network's weights; files are hashed once."""
        if network not in self._hashes:
            self.reporter.hashing(network)
            self._hashes[network] = self.weights.hashes(network)
        return self._hashes[network]

    # ------------------------------------------------------------------------------------------------------- graphs

    def graph(self, model: GraphModel, *, make: bool) -> Exported | None:
        """Bring one graph up to date, or only its configs without `make`. None if there is no such graph."""
        small = in_folder(configs(model.spec))
        old = read_json(self.root / model.name / MANIFEST)
        hashes = self.hashes(model.network)
        head = layout.manifest_head(
            model,
            self.weights.preset,
            self.precision,
            self.weights.origin_of(model.network),
            hashes,
            self.weights.licences.get(model.network),
        )
        fresh = intact(self.root / model.name, old) and all(old.get(key) == value for key, value in head.items())
        if make and not fresh:
            return self._made(model, head, small)
        if old:
            self.manifests[model.name] = old
            self._keep(model.name, small, keep=(Path(GRAPH).name, Path(MANIFEST).name, *old.get("files", ())))
            found = {"parity": old.get("parity", {}), "quality": old.get("quality", {})}
            exported = Exported(model.name, False, total_bytes(old), **found)
            self.reporter.done(exported)
            return exported
        return None

    def _made(self, model: GraphModel, head: dict[str, Any], small: Mapping[str, bytes]) -> Exported:
        """Build a graph, write it and compare it with PyTorch."""
        from heartvoice.export.parity_targets import target_of
        from heartvoice.export.writer import write_graph

        start = time.perf_counter()
        source, target = self.weights.source(model.network), target_of(model)
        graph = target.build(self.weights.preset, source, self.precision)
        self._check_disk(model.name, graph.nbytes)
        folder = self.staging.folder(model.name)
        self.reporter.writing(model.name, graph.nbytes)
        files = write_graph(graph, folder / "1", external_bytes=self.external_bytes, progress=self.reporter.advance)
        self.reporter.comparing(model.name)
        parity = self._reference_of(model.network).compare(target, folder / GRAPH, self.precision)
        manifest = {**head, "files": files, "parity": parity}
        quality: dict[str, Any] = {}
        if target.inspect is not None:
            manifest["quality"] = quality = target.inspect(self.weights.preset, source, folder)
        write_file(folder / MANIFEST, layout.to_json(manifest))
        _write(folder, small)
        self.manifests[model.name] = manifest
        exported = Exported(model.name, True, total_bytes(manifest), time.perf_counter() - start, parity, quality)
        self.reporter.done(exported)
        return exported

    def _reference_of(self, network: Network) -> Reference:
        """Return the PyTorch network; only one is kept in memory."""
        from heartvoice.export.parity import Reference

        if self._reference is None or self._reference[0] != network:
            self._reference = None  # free the old network before the new one is loaded
            self._reference = network, Reference(self.weights.preset, network, self.weights.source(network))
        return self._reference[1]

    def _check_disk(self, model: str, n_bytes: int) -> None:
        free = shutil.disk_usage(self.staging.root).free
        needed = n_bytes * 1.02 + 2**24
        if free < needed:
            where = self.staging.repository.parent
            raise ExportError(f"{model}: needs {needed / 1e6:.0f} MB in {where}, {free / 1e6:.0f} MB are free")

    # ------------------------------------------------------------------------------------------------ everything else

    def plain(self, model: ModelSpec) -> None:
        """Write a model without a graph: its config and adapter, and the language model's tokenizer and ids."""
        small = in_folder(model_files(model))
        if model is HEARTMULA:
            small[f"1/{TOKENIZER}"] = self.weights.tokenizer().encode()
            small[f"1/{GENERATION}"] = self.weights.gen_config.encode()
        self._keep(model.name, small, keep=())

    def _keep(self, model: str, small: Mapping[str, bytes], *, keep: Collection[str]) -> None:
        """Stage a model with new small files if they changed; its large files are linked, not copied."""
        there = self.root / model
        if all((there / name).is_file() and (there / name).read_bytes() == text for name, text in small.items()):
            return
        folder = self.staging.folder(model)
        _write(folder, small)
        for name in sorted({f"1/{name}" for name in keep} | set(plan_files(there))):
            (folder / name).parent.mkdir(exist_ok=True)
            os.link(there / name, folder / name)

    def index(self) -> str:
        """Return the text of `repository.json`."""
        preset = self.weights.preset
        precisions = {manifest["precision"] for manifest in self.manifests.values()}
        return layout.to_json(
            {
                "format": FORMAT,
                "preset": preset.name,
                "precision": precisions.pop() if len(precisions) == 1 else "mixed",
                "weights": self.weights.summary,
                "sources": {network: self.hashes(network) for network in NETWORKS},
                "origins": {network: self.weights.origin_of(network) for network in NETWORKS},
                "licences": dict(self.weights.licences),
                "names": {
                    network: name
                    for network, name in self.weights.names.items()
                    if self.weights.origin_of(network) == OFFICIAL
                },
                "sizes": layout.sizes(preset),
                "versions": layout.versions(),
                "graphs": {
                    name: {"precision": manifest["precision"], "sha256": manifest["files"][Path(GRAPH).name]["sha256"]}
                    for name, manifest in self.manifests.items()
                },
            }
        )


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)


def total_bytes(manifest: Mapping[str, Any]) -> int:
    """Return the size of a graph's files in bytes."""
    return sum(int(entry["bytes"]) for entry in manifest.get("files", {}).values())


def intact(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Return True if a graph's files match its manifest; of large files only the size is compared."""
    files = manifest.get("files", {})
    for name, entry in files.items():
        path = folder / "1" / name
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            return False
        if entry["bytes"] <= _HASHED_BYTES and layout.sha256(path) != entry["sha256"]:
            return False
    return bool(files)
