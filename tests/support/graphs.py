"""Graphs as engines, without a repository."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from heartvoice.config.presets import PRESETS, GenerationIds, HeartCodecConfig, HeartMuLaConfig, Preset, with_separator
from heartvoice.export.graph_builder import Graph
from heartvoice.export.writer import GRAPH_FILE, write_graph
from heartvoice.keyed_random import normal, uniform
from heartvoice.runtime.engines import OnnxEngine
from tests.support.golden_cases import GoldenFolder

Arrays = dict[str, npt.NDArray[Any]]
TINY = with_separator(PRESETS["tiny"], "htdemucs")


def engine_of(graph: Graph, folder: Path, **options: Any) -> OnnxEngine:
    """Write a graph and open it on one thread."""
    folder.mkdir(parents=True, exist_ok=True)
    write_graph(graph, folder, **options)
    return OnnxEngine(folder / GRAPH_FILE, threads=1)


def relative_error(got: npt.NDArray[Any], want: npt.NDArray[Any]) -> float:
    assert got.shape == want.shape
    return float(np.linalg.norm(got.astype(np.float64) - want) / np.linalg.norm(want))


def golden_lm(folder: GoldenFolder) -> Preset:
    """The preset of a golden HeartMuLa folder."""
    lm = HeartMuLaConfig.from_config(folder.config)
    codec = replace(TINY.codec, codebook_size=lm.codebook_size, num_quantizers=lm.audio_num_codebooks)
    ids = GenerationIds.from_config(folder.config["gen_config"])
    return Preset("golden", lm, codec, ids, max_positions=lm.backbone.max_seq_len)


def empty_cache(preset: Preset, rows: int, positions: int) -> Arrays:
    sizes = preset.lm.backbone
    shape = (rows, sizes.num_kv_heads, positions, sizes.head_dim)
    return {f"{kind}_past_{layer}": np.zeros(shape, np.float32) for layer in range(sizes.num_layers) for kind in "kv"}


def store(
    cache: Arrays, outputs: Mapping[str, npt.NDArray[Any]], position: Iterable[int], n_new: Iterable[int]
) -> None:
    """Write new keys and values into a cache, row by row."""
    for name, past in cache.items():
        new = outputs[name.replace("past", "new")]
        for row, (start, count) in enumerate(zip(position, n_new, strict=True)):
            past[row, :, start : start + count] = new[row, :, :count]


def step_inputs(preset: Preset, cfg_scales: Sequence[float], **changes: Any) -> Arrays:
    """Inputs of one frame for a batch of songs; guided ones (scale above 1) have two adjacent rows.

    `changes` override the defaults: greedy, at position 0.
    """
    count, books = len(cfg_scales), preset.lm.audio_num_codebooks
    row_song = [song for song, scale in enumerate(cfg_scales) for _ in range(2 if scale > 1 else 1)]
    cond = [row_song.index(song) for song in range(count)]
    inputs: dict[str, Any] = {
        "text_ids": np.full((count, 1), -1),
        "codes": np.zeros((count, books), np.int64),
        "style": np.zeros((count, preset.lm.muq_dim), np.float32),
        "style_index": np.full(count, -1),
        "n_new": np.ones(count, np.int64),
        "position": np.zeros(len(row_song), np.int64),
        "row_song": np.array(row_song),
        "cond_row": np.array(cond),
        "uncond_row": np.array([row + (scale > 1) for row, scale in zip(cond, cfg_scales, strict=True)]),
        "temperature": np.ones(count, np.float32),
        "top_k": np.ones(count, np.int64),
        "cfg_scale": np.array(cfg_scales, np.float32),
        "uniform": np.zeros((count, books), np.float32),
        "allow_eos": np.ones(count, np.bool_),
    }
    return inputs | changes


def flow_inputs(sizes: HeartCodecConfig, rows: int, length: int) -> Arrays:
    """Inputs of the codec's flow."""
    widths = {"x": sizes.out_channels, "context": sizes.out_channels, "mu": sizes.dim}
    inputs: Arrays = {name: normal(0, name, length, (rows, length, width)) for name, width in widths.items()}
    return inputs | {"t": uniform(0, "t", length, (rows, 1))}
