"""The complete converter for tests: over PyTorch modules or graphs, small or golden."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from heartvoice.checkpoints.bigvgan import read_sizes
from heartvoice.config.presets import CampplusConfig, RmvpeConfig
from heartvoice.config.svc import BigvganConfig, SvcConfig
from heartvoice.export.style_graph import build_svc_style
from heartvoice.export.vocoder_graph import build_vocoder
from heartvoice.models.load import Checkpoint, TensorSource, load_network, random_checkpoint
from heartvoice.runtime.networks import Networks
from heartvoice.stages.f0 import RMVPE_BIN_CENTS, RMVPE_FIRST_CENTS, F0Stage
from heartvoice.stages.svc.stage import ConvertStage
from tests.support.golden_cases import GoldenFolder
from tests.support.graphs import engine_of
from tests.support.svc_networks import (
    DIT,
    REGULATOR,
    WHISPER,
    golden_dit,
    golden_regulator,
    golden_whisper,
    network_of,
    random_source,
    svc_engine,
)
from tests.support.vocoders import random_source as random_vocoder
from tests.support.vocoders import vocoder

Array = npt.NDArray[Any]
Kind = Literal["modules", "graphs"]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]

RATE_HZ = 44_100
VOCODER = BigvganConfig(
    num_mels=DIT.in_channels, upsample_rates=(64, 8), upsample_kernel_sizes=(128, 16), upsample_initial_channel=8,
    resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1,),),
)  # fmt: skip
SIZES = SvcConfig(WHISPER, REGULATOR, DIT, VOCODER)
STYLE = CampplusConfig(
    n_bands=16, embedding=DIT.style_dim, head_channels=2, init_channels=8, growth=4, bottleneck=8, blocks=(2, 2, 2)
)
F0 = RmvpeConfig(n_mels=128)


@dataclass
class Called(Networks):
    """Functions as `Networks` that count their calls."""

    runs: Mapping[str, Run]
    calls: list[str] = field(default_factory=list)

    def run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        self.calls.append(name)
        return self.runs[name](inputs)


@dataclass(frozen=True)
class Sources:
    """Weights of every network."""

    sizes: SvcConfig
    whisper: TensorSource
    regulator: TensorSource
    dit: TensorSource
    vocoder: TensorSource


def module_runs(sources: Sources) -> dict[str, Run]:
    sizes = sources.sizes
    return {
        "content_encoder": _run(network_of(sizes.whisper, sources.whisper), "content"),
        "svc_regulator": _run(network_of(sizes.regulator, sources.regulator), "cond"),
        "svc_flow": _run(network_of(sizes.dit, sources.dit), "velocity"),
        "vocoder": _run(vocoder(sizes.vocoder, sources.vocoder), "audio"),
    }


def _run(network: nn.Module, output: str) -> Run:
    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in inputs.items()}  # own, writable
        if "t" in tensors:
            tensors["t"] = tensors["t"][:, 0]
        with torch.inference_mode():
            return {output: network(**tensors).numpy()}

    return run


def graph_runs(sources: Sources) -> dict[str, Run]:
    sizes = sources.sizes
    with TemporaryDirectory() as folder:
        return {
            "content_encoder": svc_engine(sizes.whisper, sources.whisper).run,
            "svc_regulator": svc_engine(sizes.regulator, sources.regulator).run,
            "svc_flow": svc_engine(sizes.dit, sources.dit).run,
            "vocoder": engine_of(build_vocoder(sizes.vocoder, sources.vocoder), Path(folder)).run,
        }


def loudest_pitch(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Fake RMVPE: the salience is that of the loudest band's centre, none in silence."""
    log_mel = inputs["features"]  # [1, 128, T]
    ends = 2595 * np.log10(1 + np.array([30.0, 8000.0]) / 700)
    centres = 700 * (10 ** (np.linspace(ends[0], ends[1], log_mel.shape[1] + 2)[1:-1] / 2595) - 1)
    cents = 1200 * np.log2(centres[log_mel[0].argmax(axis=0)] / 10)
    bins = np.arange(360) * RMVPE_BIN_CENTS + RMVPE_FIRST_CENTS
    near = np.exp(-(((bins - cents[:, None]) / 25) ** 2))
    return {"activations": (near * (log_mel[0].max(axis=0)[:, None] > -6)).astype(np.float32)[None]}


@lru_cache(maxsize=2)
def small_runs(kind: Kind = "graphs") -> dict[str, Run]:
    """Return all networks, small and with random weights; pitch is that of the loudest band."""
    parts = random_source(WHISPER), random_source(REGULATOR), random_source(DIT), random_vocoder(VOCODER)
    sources = Sources(SIZES, *parts)
    style = random_checkpoint(STYLE, 0)
    if kind == "modules":
        runs = module_runs(sources) | {"svc_style": _run(load_network(STYLE, style), "embedding")}
    else:
        with TemporaryDirectory() as folder:
            runs = graph_runs(sources) | {"svc_style": engine_of(build_svc_style(STYLE, style), Path(folder)).run}
    return runs | {"f0_network": loudest_pitch}


def still(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Fake flow with velocity 0, for tests of its surroundings."""
    return {"velocity": np.zeros_like(inputs["x"])}


def hum(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Fake vocoder: repeats the mean of each frame."""
    return {"audio": np.repeat(np.tanh(inputs["mel"].mean(axis=1, keepdims=True)), VOCODER.hop, axis=2)}


def small_stage(kind: Kind = "graphs", *, context: int = 400, **replaced: Run) -> tuple[ConvertStage, Called]:
    """A stage and its networks, some of them replaced."""
    networks = Called(small_runs(kind) | replaced)
    return stage_over(networks, context=context), networks


def stage_over(networks: Networks, *, context: int = 400) -> ConvertStage:
    """Make a stage over small networks."""
    return ConvertStage(networks, SIZES, F0Stage(networks, F0), STYLE.n_bands, context_frames=context)


def tone(seconds: float, hz: float = 220.0, level: float = 0.2) -> Array:
    """A voiced sound at 44.1 kHz, float32 [N]."""
    phase = 2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    wave: Array = (level * (np.sin(phase) + 0.2 * np.sin(2 * phase))).astype(np.float32)
    return wave


# -------------------------------------------------------------------------------------------------------------- golden


def golden_sources(folder: GoldenFolder) -> Sources:
    """Weights of an `e2e` folder, which are in neighbouring folders."""
    config = folder.config

    def beside(name: str) -> GoldenFolder:
        return replace(folder, path=(folder.path / config[name]).resolve().parent)

    whisper, whisper_source = golden_whisper(beside("whisper_weights"))
    regulator, regulator_source = golden_regulator(beside("length_regulator_weights"))
    dit, dit_source = golden_dit(beside("dit_weights"))
    sizes = SvcConfig(whisper, regulator, dit, read_sizes(config["bigvgan"], folder.label))
    bigvgan = Checkpoint.open(folder.path / "bigvgan_weights.safetensors")
    return Sources(sizes, whisper_source, regulator_source, dit_source, bigvgan)
