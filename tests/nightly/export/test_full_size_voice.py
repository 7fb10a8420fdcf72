"""The voice's graphs at the official sizes: as many values as inference reads, and their modules' results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from heartvoice.config.presets import RmvpeConfig
from heartvoice.config.svc import BigvganConfig, DitConfig, RegulatorConfig, WhisperConfig
from heartvoice.export.f0_graph import build_f0_network
from heartvoice.export.parity import Parity
from heartvoice.export.vocoder_graph import build_vocoder
from heartvoice.keyed_random import normal
from heartvoice.models.load import load_network, random_checkpoint
from heartvoice.models.seed_vc.build import AnyPart
from tests.support.f0_engines import f0_engine
from tests.support.graphs import engine_of, relative_error
from tests.support.svc_networks import compare_part, graph_of, network_of, svc_engine
from tests.support.svc_networks import random_source as random_part
from tests.support.vocoders import log_mel, random_source, vocoder

pytestmark = pytest.mark.timeout(600)

PARTS = [(WhisperConfig(), 352.6), (RegulatorConfig(), 33.9), (DitConfig(), 696.3)]
"""Sizes of the converter's networks, and megabytes of their graphs."""
NAMES = ["whisper", "regulator", "dit"]


@pytest.mark.parametrize(("sizes", "megabytes"), PARTS, ids=NAMES)
def test_a_converter_graph_holds_what_inference_reads(sizes: AnyPart, megabytes: float) -> None:
    assert graph_of(sizes, random_part(sizes)).nbytes / 1e6 == pytest.approx(megabytes, abs=1)


@pytest.mark.parametrize("sizes", [sizes for sizes, _ in PARTS], ids=NAMES)
def test_a_converter_graph_is_its_module(sizes: AnyPart) -> None:
    parity = Parity("whole")
    compare_part(svc_engine(sizes), network_of(sizes), sizes, parity)
    assert max(parity.errors.values()) < 1e-5


def test_a_vocoder_graph_holds_every_weight() -> None:
    graph = build_vocoder(BigvganConfig(), random_source(BigvganConfig()))
    assert 123.2e6 < graph.nbytes / 4 < 123.3e6  # 122.1 M learnt ones, and 42 taps for each channel of an activation


def test_a_vocoder_graph_is_its_module(tmp_path: Path) -> None:
    sizes = BigvganConfig()
    source = random_source(sizes)
    engine = engine_of(build_vocoder(sizes, source), tmp_path)
    network, mel = vocoder(sizes, source), log_mel(sizes, 6)
    with torch.inference_mode():
        want = network(torch.from_numpy(mel)).numpy()
    assert 0.01 < want.std() < 0.3
    assert relative_error(engine.run({"mel": mel})["audio"], want) < 2e-5


def test_a_pitch_graph_holds_every_value_that_inference_reads() -> None:
    sizes = RmvpeConfig()
    graph = build_f0_network(sizes, random_checkpoint(sizes, 0))
    assert 360_000_000 < graph.nbytes < 362_000_000  # 90.4 M values, less those of batch norm that are folded


def test_a_pitch_graph_is_its_module() -> None:
    sizes = RmvpeConfig()
    source = random_checkpoint(sizes, 0)
    features = normal(0, "log-mel", 0, (1, 128, 96)) * np.float32(3) - np.float32(5)
    with torch.inference_mode():
        want = load_network(sizes, source)(torch.from_numpy(features)).numpy()
    assert relative_error(f0_engine(sizes, source).run({"features": features})["activations"], want) < 1e-4
