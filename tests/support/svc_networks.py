"""The converter's networks for tests: from golden folders, or small ones with random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from heartvoice.checkpoints.random_init import RandomCheckpoint
from heartvoice.checkpoints.seed_vc import dit_sizes, prefixed, regulator_sizes, whisper_sizes
from heartvoice.config.svc import DitConfig, RegulatorConfig, WhisperConfig
from heartvoice.export.graph_builder import Graph
from heartvoice.export.layout import Precision
from heartvoice.export.parity import Parity
from heartvoice.export.parity_svc import compare_content, compare_regulator, compare_svc_flow
from heartvoice.export.svc_flow_graph import build_svc_flow
from heartvoice.export.svc_graphs import build_content_encoder, build_svc_regulator
from heartvoice.models.load import Checkpoint, TensorSource, load_module
from heartvoice.models.seed_vc.build import AnyPart, build_part, part_manifest
from heartvoice.models.seed_vc.random_init import part_init
from heartvoice.runtime.engines import Engine, OnnxEngine
from tests.support.golden_cases import GoldenFolder
from tests.support.graphs import engine_of

Array = npt.NDArray[Any]

WHISPER = WhisperConfig(d_model=24, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64)
REGULATOR = RegulatorConfig(channels=32, in_channels=24, n_stages=2)
DIT = DitConfig(hidden_dim=48, num_heads=3, depth=5, in_channels=12, content_dim=32, style_dim=20)


@dataclass
class OneOf:
    """Engines as `Networks` that record the inputs of every call."""

    engines: Mapping[str, Engine]
    calls: list[tuple[str, Mapping[str, Array]]] = field(default_factory=list)

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        self.calls.append((name, inputs))
        return self.engines[name].run(inputs, outputs)


class TorchFlow:
    """The velocity network under the graph's names."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in inputs.items()}
        with torch.inference_mode():
            return {"velocity": self.network(**(tensors | {"t": tensors["t"][:, 0]})).numpy()}


def random_source(sizes: AnyPart, seed: int = 0) -> TensorSource:
    return RandomCheckpoint(part_manifest(sizes), seed, part_init(sizes))


def network_of(sizes: AnyPart, source: TensorSource | None = None) -> nn.Module:
    with torch.device("meta"):
        network = build_part(sizes)
    load_module(network, source or random_source(sizes))
    return network.eval()


def compare_part(engine: Engine, network: nn.Module, sizes: AnyPart, parity: Parity) -> None:
    """Compare a part's graph with its module."""
    match sizes:
        case WhisperConfig():
            compare_content(engine, network, sizes, parity)
        case RegulatorConfig():
            compare_regulator(engine, network, sizes, parity)
        case DitConfig():
            compare_svc_flow(engine, network, sizes, parity)


def graph_of(sizes: AnyPart, source: TensorSource | None = None, precision: Precision = "fp32") -> Graph:
    source = source or random_source(sizes)
    match sizes:
        case WhisperConfig():
            return build_content_encoder(sizes, source, precision)
        case RegulatorConfig():
            return build_svc_regulator(sizes, source, precision)
        case DitConfig():
            return build_svc_flow(sizes, source, precision)


def svc_engine(sizes: AnyPart, source: TensorSource | None = None, precision: Precision = "fp32") -> OnnxEngine:
    with TemporaryDirectory() as folder:
        return engine_of(graph_of(sizes, source, precision), Path(folder))


@lru_cache(maxsize=4)
def small_engine(sizes: AnyPart) -> OnnxEngine:
    return svc_engine(sizes)


# -------------------------------------------------------------------------------------------------------------- golden


def golden_whisper(folder: GoldenFolder) -> tuple[WhisperConfig, TensorSource]:
    return whisper_sizes(folder.config), Checkpoint.open(folder.path / "encoder_weights.safetensors")


def golden_regulator(folder: GoldenFolder) -> tuple[RegulatorConfig, TensorSource]:
    return regulator_sizes(folder.config), Checkpoint.open(folder.path / "weights.safetensors")


def golden_dit(folder: GoldenFolder) -> tuple[DitConfig, TensorSource]:
    """Sizes and weights of a `dit` folder, or of a `cfm` folder, which names a `dit` folder."""
    weights = folder.path / str(folder.config.get("weights", "weights.safetensors"))
    config = replace(folder, path=weights.parent).config
    return dit_sizes(config), prefixed(Checkpoint.open(weights), "cfm.")


def frames_last(value: Array) -> Array:
    """[B, T, M] to the reference's [B, M, T], and back."""
    return np.ascontiguousarray(np.swapaxes(value, 1, 2))


def case_number(name: str, mark: str) -> float:
    """Return the number after a mark in a tensor's name: `case_number("out.full.t0.5", ".t")` is 0.5."""
    return float(name[name.rindex(mark) + len(mark) :])
