"""Batches of prompts and songs as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train.demo.layout import ATOM_1, CLOCK, CURSOR, N_BOOKS, NOTE, TEMPI, read_clock
from train.demo.prompt import prompt_of

IGNORED = -100
"""Target that no loss looks at."""
FRAME = -1
"""Text id where a position is a frame."""
BAR, FIRST = 5.0, 30.0
"""Weight of a bar's first frame, of a song's end and of a song's first frame. There the few choices are made that all
else follows: the tempo, who sings, whether another line comes. With the weight 1 of all other frames they stay guesses.
In openings every half beat has a bar's weight, for there the style begins.
"""


@dataclass(frozen=True)
class Example:
    """A prompt and the codes that follow it."""

    tags: str
    lyrics: str
    codes: NDArray[np.int64]
    """[8, T]."""
    keep: float = 1.0
    """Share of the frames, beside those where something begins, that the depth decoder learns from; 0: from none at
    all."""
    ends: bool = True
    """Whether the song ends after the last frame; or it was cut there."""


def batch_of(examples: Sequence[Example], rng: np.random.Generator, *, eos_id: int, blank: float) -> dict[str, Tensor]:
    """Lay out examples side by side, padded on the right.

    Args:
        examples: at least one.
        rng: draws blank prompts and frames for the depth decoder.
        eos_id: code of book 0 that ends a song.
        blank: share of the examples without a prompt, for guidance.

    Returns:
        text int64 [B, L] (`FRAME` where a frame stands), style int64 [B], codes int64 [B, L, 8],
        targets int64 [B, L, 8] (`IGNORED` where there is none), depth bool [B, L], weight float32 [B, L], blank bool
        [B]; what follows a position is its target.
    """
    prompts = [prompt_of(example.tags, example.lyrics) for example in examples]
    spans = [(len(prompt.text_ids), example.codes.shape[1]) for prompt, example in zip(prompts, examples, strict=True)]
    rows, length = len(examples), max(before + frames for before, frames in spans)
    text = np.zeros((rows, length), np.int64)
    codes = np.zeros((rows, length, N_BOOKS), np.int64)
    targets = np.full((rows, length, N_BOOKS), IGNORED)
    depth = np.zeros((rows, length), bool)
    weight = np.ones((rows, length), np.float32)
    for row, (prompt, example, (before, frames)) in enumerate(zip(prompts, examples, spans, strict=True)):
        text[row, :before] = prompt.text_ids
        text[row, before : before + frames] = FRAME
        codes[row, before : before + frames] = example.codes.T
        targets[row, before - 1 : before - 1 + frames] = example.codes.T
        if example.ends:
            targets[row, before - 1 + frames, CURSOR] = eos_id
        depth[row, before - 1 : before - 1 + frames] = _depth_frames(example, rng)
        weight[row, before - 1 : before - 1 + frames] = _weights(example)
        weight[row, before - 1 + frames] = BAR
    arrays = {
        "text": text, "style": np.array([prompt.style_index for prompt in prompts]), "codes": codes,
        "targets": targets, "depth": depth, "weight": weight, "blank": rng.random(rows) < blank,
    }  # fmt: skip
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _depth_frames(example: Example, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Choose frames: those where a beat or another word or note begins half of the time, and some of the others."""
    if not example.keep:
        return np.zeros(example.codes.shape[1], bool)
    codes = example.codes
    changed = (np.diff(codes[[CURSOR, NOTE]], prepend=-1) != 0).any(axis=0)
    new = changed | np.array([_on_beat(int(code)) for code in codes[CLOCK]])
    share = np.where(new, 0.5 + 0.5 * example.keep, np.where(codes[ATOM_1] > 0, 2, 1) * example.keep)
    share[0] = 1.0
    return rng.random(codes.shape[1]) < share


def _weights(example: Example) -> NDArray[np.float32]:
    """Weigh frames; words alone, without a clock, are all alike."""
    weights = np.ones(example.codes.shape[1], np.float32)
    if example.keep:
        heavy = _on_bar if example.ends else _on_half_beat
        weights[[heavy(int(code)) for code in example.codes[CLOCK]]] = BAR
        weights[0] = FIRST
    return weights


def _on_bar(code: int) -> bool:
    clock = read_clock(code)
    return clock is not None and clock.frame == 0


def _on_beat(code: int) -> bool:
    clock = read_clock(code)
    return clock is not None and clock.frame % TEMPI[clock.tempo] == 0


def _on_half_beat(code: int) -> bool:
    clock = read_clock(code)
    return clock is not None and clock.frame % (TEMPI[clock.tempo] // 2) == 0
