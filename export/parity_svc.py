"""Compares the converter's graphs with their PyTorch modules at several lengths and batch sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from heartvoice.config.svc import DitConfig, RegulatorConfig, WhisperConfig
from heartvoice.export.parity import Parity
from heartvoice.keyed_random import normal, uniform
from heartvoice.models.seed_vc.dit import Velocity
from heartvoice.models.seed_vc.random_init import MEL_DEVIATION, MEL_MEAN
from heartvoice.models.seed_vc.regulator import Regulator
from heartvoice.models.seed_vc.whisper import ContentEncoder
from heartvoice.runtime.engines import Engine

Arrays = dict[str, NDArray[Any]]

_FLOW_ROWS = ((1, 2), (3, 33), (2, 96))
_REGULATED = ((1, 1), (30, 52), (200, 345), (901, 776))
"""Content frames and mel frames."""


def content_inputs(sizes: WhisperConfig, rows: int) -> Arrays:
    """Make windows of noise; later windows have more silence at the end."""
    frames = 2 * sizes.max_source_positions
    log_mel = normal(0, "parity log-mel", 0, (rows, sizes.num_mel_bins, frames)) * np.float32(0.4)
    for row in range(1, rows):
        log_mel[row, :, frames // (row + 1) :] = -1.0
    return {"log_mel": log_mel}


def regulator_case(sizes: RegulatorConfig, n_content: int, n_frames: int) -> Arrays:
    """Make content of noise and a bin for every frame, over the whole table."""
    return {
        "content": normal(0, "parity content", n_content, (1, n_content, sizes.in_channels)),
        "content_index": np.arange(n_frames) * n_content // n_frames,
        "f0_bins": (uniform(0, "parity bins", n_frames, (1, n_frames)) * sizes.n_f0_bins).astype(np.int64),
    }


def flow_rows(sizes: DitConfig, rows: int, length: int) -> Arrays:
    """Make rows with a prompt in their first third; the last of several rows is unconditional."""
    shapes = {
        "x": (rows, length, sizes.in_channels),
        "prompt_x": (rows, length, sizes.in_channels),
        "style": (rows, sizes.style_dim),
        "cond": (rows, length, sizes.content_dim),
    }
    inputs: Arrays = {name: normal(0, f"parity {name}", length, shape) for name, shape in shapes.items()}
    head = length // 3
    inputs["prompt_x"] = inputs["prompt_x"] * np.float32(MEL_DEVIATION) + np.float32(MEL_MEAN)
    inputs["x"][:, :head], inputs["prompt_x"][:, head:] = 0, 0
    if rows > 1:
        for name in ("prompt_x", "style", "cond"):
            inputs[name][-1] = 0
    return inputs | {"t": uniform(0, "parity t", length, (rows, 1))}


@torch.inference_mode()
def compare_content(engine: Engine, network: torch.nn.Module, sizes: WhisperConfig, parity: Parity) -> None:
    """Compare content of one window and of two, one of them mostly silent."""
    assert isinstance(network, ContentEncoder)
    for rows in (1, 2):
        inputs = content_inputs(sizes, rows)
        want = network(torch.from_numpy(inputs["log_mel"]))
        parity.add("content", engine.run(inputs)["content"], want.numpy())


@torch.inference_mode()
def compare_regulator(engine: Engine, network: torch.nn.Module, sizes: RegulatorConfig, parity: Parity) -> None:
    """Compare conditions of several lengths."""
    assert isinstance(network, Regulator)
    for n_content, n_frames in _REGULATED:
        inputs = regulator_case(sizes, n_content, n_frames)
        want = network(*(torch.from_numpy(value) for value in inputs.values()))
        parity.add("cond", engine.run(inputs)["cond"], want.numpy())


@torch.inference_mode()
def compare_svc_flow(engine: Engine, network: torch.nn.Module, sizes: DitConfig, parity: Parity) -> None:
    """Compare velocities row by row; each row has a different time."""
    assert isinstance(network, Velocity)
    for rows, length in _FLOW_ROWS:
        inputs = flow_rows(sizes, rows, length)
        tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
        want = network(**(tensors | {"t": tensors["t"][:, 0]})).numpy()
        got = engine.run(inputs)["velocity"]
        for row in range(rows):
            parity.add("velocity", got[row], want[row])
