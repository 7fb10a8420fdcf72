"""Read an exported model repository: its preset, where its weights come from, where each graph lies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from heartvoice.errors import EngineError
from heartvoice.limits import CONTRACT
from heartvoice.presets import (
    F0S,
    SPEAKERS,
    CampplusSizes,
    GenerationIds,
    HeartCodecSizes,
    HeartMuLaSizes,
    Preset,
    SeparatorSizes,
    SvcSizes,
)

INDEX = "repository.json"
"""The repository's own description, at its root; written last, so that its presence means a finished export."""
GRAPH = "1/model.onnx"
MANIFEST = "1/model.json"


@dataclass(frozen=True)
class Repository:
    """An exported repository on disk."""

    root: Path

    @cached_property
    def index(self) -> dict[str, Any]:
        """The parsed `repository.json`.

        Raises:
            EngineError: the folder is no finished export.
        """
        path = self.root / INDEX
        try:
            index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return index
        except FileNotFoundError:
            raise EngineError(
                f"{path} is missing: not an exported repository; "
                f"make one with `heartvoice export --repository {self.root}`"
            ) from None
        except (ValueError, OSError) as error:
            raise EngineError(f"{path}: unreadable: {error}") from error

    @cached_property
    def preset(self) -> Preset:
        """The preset with the sizes that the export found in the checkpoints."""
        sizes = self.index["sizes"]
        speaker, f0 = sizes["speaker"], sizes["f0"]
        return Preset(
            name=self.index["preset"],
            lm=HeartMuLaSizes.from_config(sizes["lm"]),
            codec=HeartCodecSizes.from_config(sizes["codec"]),
            separator=SeparatorSizes.from_config(sizes["separator"]),
            speaker=SPEAKERS[speaker["engine"]].from_config(speaker),
            f0=F0S[f0["engine"]].from_config(f0),
            svc=SvcSizes.from_config(sizes["svc"]),
            style=CampplusSizes.from_config(sizes["style"]),
            ids=GenerationIds.from_config(sizes["ids"]),
            max_positions=sizes["max_positions"],
        )

    def origin(self, network: str) -> str:
        """Where the weights of a network come from: `random seed=N`, `official`, or what was published."""
        return str(self.index["origins"][network])

    def is_random(self, network: str) -> bool:
        """Whether a network's weights are random, so that what it says means nothing."""
        return self.origin(network).startswith("random")

    @property
    def random_weights(self) -> bool:
        """Whether any network has random weights, so that the output is noise."""
        return any(self.is_random(network) for network in self.index["origins"])

    @property
    def about(self) -> dict[str, Any]:
        """What every report says of the networks."""
        return {key: self.index[key] for key in ("preset", "precision", "weights")} | {
            "random_weights": self.random_weights,
            "contract": CONTRACT,
        }

    def about_network(self, network: str, *others: str) -> dict[str, Any]:
        """What the report of a model over one network, and `others` that serve it, says of them."""
        return {
            "preset": self.index["preset"],
            "weights": self.origin(network),
            "random_weights": any(self.is_random(name) for name in (network, *others)),
            "contract": CONTRACT,
        }

    def graph(self, model: str) -> Path:
        """The ONNX file of `model`.

        Raises:
            EngineError: it is missing, or was exported for another preset than the repository's.
        """
        path, manifest = self.root / model / GRAPH, self.root / model / MANIFEST
        if not path.is_file() or not manifest.is_file():
            raise EngineError(f"{model}: {path} or its manifest is missing; run `heartvoice export` again")
        try:
            preset = json.loads(manifest.read_text(encoding="utf-8"))["preset"]
        except (ValueError, KeyError) as error:
            raise EngineError(f"{manifest}: unreadable: {error}") from error
        if preset != self.index["preset"]:
            raise EngineError(
                f"{model}: exported for preset {preset!r}, but {self.root / INDEX} says {self.index['preset']!r}; "
                "export the whole repository again"
            )
        return path
