"""The separators' benchmark: one chunk of a RoFormer, and processor time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.separators import Cpu, timed_chunk
from heartvoice.config.presets import RoformerConfig
from heartvoice.export.roformer_graph import build_roformer
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.models.load import random_checkpoint


def test_a_chunk_leaves_its_seconds_beside_its_graph(tmp_path: Path) -> None:
    sizes = RoformerConfig(
        bands=((0, 16),), dim=8, depth=1, dim_head=4, heads=2, stft_n_fft=32, stft_hop_length=8, chunk_size=64
    )
    write_graph(build_roformer(sizes, random_checkpoint(sizes, 0)), tmp_path)
    timed_chunk(tmp_path / GRAPH_FILE, sizes, 1)()
    wall, cpu = np.load(tmp_path / "seconds.npy")
    assert wall > 0
    assert cpu >= 0


def test_processor_time_counts_each_call() -> None:
    call = Cpu(lambda: sum(range(100_000)))
    call()
    call()
    assert len(call.seconds) == 2
    assert min(call.seconds) > 0
