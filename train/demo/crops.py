"""Crops of rendered songs: codes, one channel's samples, and sometimes with parts left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from train.demo import layout
from train.demo.score import Codes

Samples = NDArray[np.float32]
PARTS = ("voice", "chord", "lead", "bass", "drum")
LEFT_OUT = 0.3
"""Share of crops with only some of the parts, so that the decoder learns each one by itself."""


class Renderer(Protocol):
    """Turns codes into sound."""

    places: Mapping[str, tuple[float, float]]
    """Gains of each part in the left and the right channel."""

    def sounds(self, codes: Codes) -> Mapping[str, Samples]:
        """Render what each 40 ms of codes [8, n] add to each part: float32 [2 n, slots.SAMPLES]."""
        ...

    def stems(self, codes: Codes) -> Mapping[str, Samples]:
        """Render int64 [8, n] to float32 [2, n * 3840] for each name of `PARTS`.

        A frame sounds the same in every song, but for what the frame before it leaves ringing, and for its parity:
        column 0 is an even frame.
        """
        ...


@dataclass(frozen=True)
class Crops:
    """Crops of one length."""

    codes: NDArray[np.int64]
    """[B, 8, n]."""
    channel: NDArray[np.int64]
    """[B], 0 is left."""
    audio: Samples
    """[B, n * 3840]."""


def chosen_shape(shapes: Sequence[tuple[float, int, int]], rng: np.random.Generator) -> tuple[int, int]:
    """Choose a batch's rows and frames among (share of the steps, rows, frames)."""
    _, n_rows, n_frames = shapes[rng.choice(len(shapes), p=[share for share, _, _ in shapes])]
    return n_rows, n_frames


def cut(songs: Sequence[Codes], renderer: Renderer, shape: tuple[int, int], rng: np.random.Generator) -> Crops:
    """Cut crops at random places of random songs.

    Args:
        songs: int64 [8, T] each.
        renderer: makes their sound.
        shape: number of crops, and their length in frames; shorter songs are not used.
        rng: source of all choices.

    Raises:
        ValueError: no song is long enough.
    """
    n_crops, n_frames = shape
    long_enough = [song for song in songs if song.shape[1] >= n_frames]
    if not long_enough:
        raise ValueError(f"songs: expected one of at least {n_frames} frames")
    weights = np.array([song.shape[1] for song in long_enough], np.float64)
    chosen = rng.choice(len(long_enough), n_crops, p=weights / weights.sum())
    channel = rng.integers(0, 2, n_crops)
    codes, audio = [], []
    for index, side in zip(chosen, channel, strict=True):
        song = long_enough[index]
        start = int(rng.integers(0, song.shape[1] - n_frames + 1))
        before = 0 if start == 0 else 1 + (start + 1) % 2  # what rings on; a rendering begins in an even frame
        part = song[:, start - before : start + n_frames]
        if rng.random() < LEFT_OUT:
            part = without(part, left_out(rng))
        codes.append(part[:, before:])
        audio.append(mix(renderer.stems(part))[side, before * layout.FRAME_SAMPLES :])
    return Crops(np.stack(codes), channel, np.stack(audio))


def mix(stems: Mapping[str, Samples]) -> Samples:
    """Add up the stems of all parts, [2, N]."""
    total: Samples = np.sum([stems[name] for name in PARTS], axis=0, dtype=np.float32)
    return total


def left_out(rng: np.random.Generator) -> frozenset[str]:
    """Choose the parts that a crop lacks; one part at least stays."""
    kept = rng.random(len(PARTS)) < 0.5
    kept[rng.integers(len(PARTS))] = True
    return frozenset(name for name, keep in zip(PARTS, kept, strict=True) if not keep)


def without(codes: Codes, parts: frozenset[str]) -> Codes:
    """Return codes [8, n] in which some parts are silent."""
    made = codes.copy()
    if "voice" in parts:
        made[[layout.NOTE, layout.ATOM_1, layout.ATOM_2]] = 0
    if "chord" in parts:
        made[layout.CHORD] = 0
    if "lead" in parts:
        made[layout.LEAD] = 0
    bass, drum = np.divmod(made[layout.LOW], layout.N_DRUM)
    made[layout.LOW] = (0 if "bass" in parts else bass) * layout.N_DRUM + (0 if "drum" in parts else drum)
    return made


def only(codes: Codes, part: str) -> Codes:
    """Return codes [8, n] in which all parts but one are silent."""
    return without(codes, frozenset(PARTS) - {part})
