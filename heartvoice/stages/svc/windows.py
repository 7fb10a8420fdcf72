"""The flow's windows of a song and their cross-fades, and the regulator's inputs.

Source: seed_vc spec, sections 6 and 12.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.config.svc import SVC_HOP
from heartvoice.contracts.graphs import SVC_CONTEXT
from heartvoice.errors import InvalidRequestError
from heartvoice.stages.svc.pitch import Contour, pitch_bins

Samples = NDArray[np.float32]

OVERLAP_FRAMES = 16
"""Frames that neighbouring windows share, 186 ms."""


def nearest_index(n_from: int, n_to: int) -> NDArray[np.int64]:
    """Index of the nearest of `n_from` frames for each of `n_to`, int64 [n_to].

    All in float32, as in the reference: integers would differ at 42 of the 25839 frames of a song of five minutes.
    """
    step = np.float32(n_from) / np.float32(n_to)
    index = np.floor(np.arange(n_to, dtype=np.float32) * step).astype(np.int64)
    inside: NDArray[np.int64] = np.minimum(index, n_from - 1)
    return inside


def regulator_inputs(
    content: NDArray[np.float32], f0: Contour, n_frames: int, n_f0_bins: int = 256
) -> Mapping[str, Array]:
    """The inputs of `svc_regulator` for a whole recording.

    Args:
        content: float32 [S, C].
        f0: Hz, 100 values a second: of a song after `pitch.shifted`, of a reference as it was tracked.
        n_frames: mel frames.
        n_f0_bins: of the regulator's table.

    Raises:
        InvalidRequestError: one of the three is empty.
    """
    if not (len(content) and f0.size and n_frames > 0):
        raise InvalidRequestError(
            f"audio: expected a mel frame, content and pitch, got {n_frames}, {len(content)} and {f0.size} frames"
        )
    bins = pitch_bins(f0.reshape(-1), n_f0_bins)[nearest_index(f0.size, n_frames)]
    return {
        "content": np.ascontiguousarray(content[None], dtype=np.float32),
        "content_index": nearest_index(len(content), n_frames),
        "f0_bins": bins[None],
    }


@dataclass(frozen=True)
class SvcWindow:
    """Frames [start, end) of the song, which the flow converts in one run."""

    start: int
    end: int
    last: bool


def plan_windows(n_frames: int, prompt_frames: int, *, context: int = SVC_CONTEXT) -> list[SvcWindow]:
    """Cut a song into windows that leave room for the prompt.

    Args:
        n_frames: mel frames of the song, at least 1.
        prompt_frames: of the prompt, which precedes every window.
        context: frames of one run of the flow, prompt included.

    Returns:
        Windows that overlap by 16 frames. The last one has 17 or more, unless it is the only one.

    Raises:
        InvalidRequestError: the song is empty, or the prompt is too long.
    """
    if n_frames < 1:
        raise InvalidRequestError(f"vocals: expected at least {SVC_HOP} samples at 44.1 kHz, got no mel frame")
    room = context - prompt_frames
    if room <= OVERLAP_FRAMES:
        raise InvalidRequestError(
            f"voice: expected a prompt of less than {context - OVERLAP_FRAMES} mel frames, got {prompt_frames}"
        )
    windows, start = [], 0
    while True:
        end = min(start + room, n_frames)
        windows.append(SvcWindow(start, end, end == n_frames))
        if end == n_frames:
            return windows
        start = end - OVERLAP_FRAMES


class WindowJoiner:
    """Cross-fades consecutive windows with weights that add up to one. Holds only the end of the last window."""

    def __init__(self, overlap: int = OVERLAP_FRAMES * SVC_HOP) -> None:
        """Start before the first window; `overlap` is in samples."""
        self._overlap = overlap
        self._fade_out = np.cos(np.linspace(0, np.pi / 2, overlap)) ** 2  # float64 [overlap]
        self._fade_in = np.cos(np.linspace(np.pi / 2, 0, overlap)) ** 2
        self._tail: Samples | None = None
        self._ended = False

    def add(self, wave: Samples, *, last: bool) -> Samples:
        """Add the next window.

        Args:
            wave: float32 [N], the whole window with both overlaps.
            last: no window follows.

        Returns:
            float32, the finished samples. Together they are as long as all windows, with each overlap counted once.

        Raises:
            ValueError: the window is shorter than its overlaps, or follows the last one.
        """
        needed = self._overlap * ((self._tail is not None) + (not last))
        if self._ended or len(wave) < needed:
            raise ValueError(f"wave: expected at least {needed} samples and none after the last, got {len(wave)}")
        joined = wave.astype(np.float32)  # a copy: the caller keeps its window
        if self._tail is not None:
            head = slice(0, self._overlap)
            joined[head] = joined[head] * self._fade_in + self._tail * self._fade_out
        self._ended = last
        if last:
            return joined
        self._tail = joined[-self._overlap :].copy()
        return joined[: -self._overlap]
