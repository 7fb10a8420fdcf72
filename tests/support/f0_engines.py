"""The F0 network's engines for tests, without a repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from heartvoice.arrays import Array
from heartvoice.config.presets import AnyF0, RmvpeConfig, SwiftF0Config
from heartvoice.errors import ExportError
from heartvoice.export import wheel_files
from heartvoice.export.f0_graph import build_f0_network
from heartvoice.export.swift_f0 import OnnxFile, open_swift_f0
from heartvoice.models.load import TensorSource
from heartvoice.runtime.engines import Engine, OnnxEngine
from tests.support.golden_cases import GoldenFolder
from tests.support.graphs import engine_of

SWIFT = SwiftF0Config()
SMALL = RmvpeConfig(n_blocks=1, inter_layers=1, en_out_channels=2, gru_hidden=24)
"""Sizes of a small RMVPE."""


class OneNetwork:
    """An engine as `Networks` that records the shapes of its inputs."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.shapes: list[tuple[int, ...]] = []

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        assert name == "f0_network"
        self.shapes.append(inputs["features"].shape)
        return self.engine.run(inputs, outputs)


@lru_cache(maxsize=1)
def swift_file() -> OnnxFile:
    """Return swift-f0's published graph; skip the test without cache and network."""
    try:
        return open_swift_f0(wheel_files.member("swift-f0"))
    except ExportError as error:
        pytest.skip(f"needs swift-f0's published graph: {error}")


@lru_cache(maxsize=1)
def swift_engine() -> OnnxEngine:
    return f0_engine(SWIFT, swift_file())


def f0_engine(sizes: AnyF0, source: TensorSource, **options: Any) -> OnnxEngine:
    with TemporaryDirectory() as folder:
        return engine_of(build_f0_network(sizes, source, **options), Path(folder))


def golden_sizes(folder: GoldenFolder) -> RmvpeConfig:
    """Sizes of a golden RMVPE; its mel bands are listed with the front end's other numbers."""
    return RmvpeConfig.from_config({"n_mels": folder.config["mel"]["n_mels"], **folder.config})
