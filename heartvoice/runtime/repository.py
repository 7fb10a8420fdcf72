"""Reads an exported model repository: preset, origin of the weights, and paths of the graphs."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from heartvoice.checkpoints.file_hash import sha256 as sha256
from heartvoice.checkpoints.official import licence_name
from heartvoice.config.presets import (
    F0S,
    SPEAKERS,
    CampplusConfig,
    GenerationIds,
    HeartCodecConfig,
    HeartMuLaConfig,
    Preset,
    SvcConfig,
    separator_sizes,
)
from heartvoice.contracts.constants import CONTRACT
from heartvoice.contracts.models import HEARTMULA, models_with
from heartvoice.contracts.network_names import RANDOM
from heartvoice.contracts.types import ModelSpec
from heartvoice.errors import EngineError

INDEX = "repository.json"
"""Index of the repository, at its root. It is written last, so its presence means a complete export."""
FORMAT = 3
"""Version of what an exported repository and this code must agree on: tensors of models, import paths of adapters."""
GRAPH = "1/model.onnx"
MANIFEST = "1/model.json"
_AGAIN = "run `heartvoice export` again"


@dataclass(frozen=True)
class Repository:
    """An exported repository on disk."""

    root: Path

    @cached_property
    def index(self) -> dict[str, Any]:
        """The parsed `repository.json`.

        Raises:
            EngineError: the folder is not a complete export, or another version of heartvoice exported it.
        """
        path = self.root / INDEX
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise EngineError(
                f"{path} is missing: not an exported repository; "
                f"make one with `heartvoice export --repository {self.root}`"
            ) from None
        except (ValueError, OSError) as error:
            raise EngineError(f"{path}: unreadable: {error}") from error
        if not isinstance(index, dict):
            raise EngineError(f"{path}: unreadable: expected an object, got {type(index).__name__}")
        if index.get("format") != FORMAT:
            raise EngineError(self._outdated(index))
        return index

    def _outdated(self, index: dict[str, Any]) -> str:
        """The refusal of an export that has another format number or none, with the command that replaces it."""
        found = index.get("format")
        version = "a newer version" if isinstance(found, int) and found > FORMAT else "an older version"
        # Earlier exports call all `weights` random where the converter alone is.
        origin = index.get("origins", {}).get("lm", index.get("weights"))
        random = re.fullmatch(rf"{RANDOM} seed=(\d+)", str(origin))
        weights = f"--random-weights {random[1]}" if random else "--weights DIR"
        return (
            f"{self.root}: exported by {version}: export again: "
            f"`heartvoice export --preset {index.get('preset')} {weights} --repository {self.root}`"
        )

    @cached_property
    def preset(self) -> Preset:
        """The preset, with the sizes that the export found in the checkpoints."""
        sizes = self.index["sizes"]
        speaker, f0 = sizes["speaker"], sizes["f0"]
        return Preset(
            name=self.index["preset"],
            lm=HeartMuLaConfig.from_config(sizes["lm"]),
            codec=HeartCodecConfig.from_config(sizes["codec"]),
            separator=separator_sizes(sizes["separator"]),
            speaker=SPEAKERS[speaker["engine"]].from_config(speaker),
            f0=F0S[f0["engine"]].from_config(f0),
            svc=SvcConfig.from_config(sizes["svc"]),
            style=CampplusConfig.from_config(sizes["style"]),
            ids=GenerationIds.from_config(sizes["ids"]),
            max_positions=sizes["max_positions"],
        )

    @property
    def models(self) -> dict[str, ModelSpec]:
        """The contracts' models that it has, by name."""
        return models_with(self.preset.separator.engine)

    @property
    def tokenizer(self) -> Path:
        """The language model's `tokenizer.json`."""
        return self.root / HEARTMULA.name / "1" / "tokenizer.json"

    def origin(self, network: str) -> str:
        """Return the origin of a network's weights: `random seed=N`, `official`, or the published file."""
        return str(self.index["origins"][network])

    def model_name(self, network: str) -> str:
        """Return what a network's weights are published as; their origin, if the export did not keep a name."""
        return str(self.index.get("names", {}).get(network, self.origin(network)))

    def _files(self, network: str) -> dict[str, str]:
        """Return the sha256 of each file that a network was exported from, by name: hashed then, not now."""
        return dict(self.index.get("sources", {}).get(network, {}))

    def is_random(self, network: str) -> bool:
        """Return True if a network's weights are random, which makes its output meaningless."""
        return self.origin(network).startswith(RANDOM)

    @property
    def random_networks(self) -> frozenset[str]:
        """Networks with random weights."""
        return frozenset(name for name in self.index["origins"] if self.is_random(name))

    @property
    def random_weights(self) -> bool:
        """True if any network has random weights, which makes the output noise."""
        return any(self.is_random(network) for network in self.index["origins"])

    @property
    def weights_sha256(self) -> str:
        """Hash of all graphs, whose files hold the weights: equal exports have equal ones."""
        hashes = {name: graph["sha256"] for name, graph in self.index["graphs"].items()}
        return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()

    def about(self, network: str, *others: str) -> dict[str, Any]:
        """Return the facts for the report of a job that runs these networks; `weights` is the first one's origin."""
        names, licences = (network, *others), self.index.get("licences", {})
        return {
            "preset": self.index["preset"],
            "precision": self.index["precision"],
            "weights": self.origin(network),
            "random_weights": any(self.is_random(name) for name in names),
            "networks": {name: self.origin(name) for name in names},
            "models": {name: self.model_name(name) for name in names if not self.is_random(name)},
            "licences": {name: licence_name(licences[name]) for name in names if name in licences},
            "hashes": {name: self._files(name) for name in names if not self.is_random(name)},
            "contract": CONTRACT,
        }

    def graph(self, model: str) -> Path:
        """Return the ONNX file of `model`.

        Raises:
            EngineError: the file is missing, or was exported for another preset than the repository's.
        """
        path = self.root / model / GRAPH
        manifest = self._manifest(model)
        if not path.is_file():
            raise EngineError(f"{model}: {path} is missing; {_AGAIN}")
        preset = manifest.get("preset")
        if preset != self.index["preset"]:
            raise EngineError(
                f"{model}: exported for preset {preset!r}, but {self.root / INDEX} says {self.index['preset']!r}; "
                "export the whole repository again"
            )
        return path

    def intact_graph(self, model: str) -> Path:
        """Return `graph` after comparing the hashes of all its files with the export's manifest.

        A different graph under the same name would load, and give wrong output or fail in the middle of a song.

        Raises:
            EngineError: the message gives the file, the expected and the actual value.
        """
        path = self.graph(model)
        files = self._manifest(model).get("files", {})
        indexed = self.index.get("graphs", {}).get(model, {}).get("sha256")
        if indexed is not None and files.get(path.name, {}).get("sha256") != indexed:
            raise EngineError(f"{model}: {path} comes from another export than {self.root / INDEX}; {_AGAIN}")
        for name, expected in files.items():
            file = path.with_name(name)
            try:
                n_bytes = file.stat().st_size
                found = sha256(file) if n_bytes == expected["bytes"] else ""
            except OSError as error:
                raise EngineError(f"{model}: {file}: {error.strerror}; {_AGAIN}") from error
            if n_bytes != expected["bytes"]:
                raise EngineError(f"{model}: {file}: expected {expected['bytes']} bytes, got {n_bytes}; {_AGAIN}")
            if found != expected["sha256"]:
                wanted = f"sha256 {expected['sha256'][:12]}... of its manifest"
                raise EngineError(f"{model}: {file}: expected {wanted}, got {found[:12]}...; {_AGAIN}")
        return path

    def _manifest(self, model: str) -> dict[str, Any]:
        path = self.root / model / MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise EngineError(f"{model}: {path} is missing; {_AGAIN}") from None
        except (ValueError, OSError) as error:
            raise EngineError(f"{path}: unreadable: {error}") from error
        if not isinstance(manifest, dict):
            raise EngineError(f"{path}: unreadable: expected an object, got {type(manifest).__name__}")
        return manifest
