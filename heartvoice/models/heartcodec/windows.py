"""How a song is cut into codec windows and joined again. No torch: the serving stages use these too.

Source: heartcodec spec, section 7, with its faults fixed: every song is padded by the same rule (the reference loses
the last overlap of some lengths), the target length is n * hop exactly, and an empty song is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from heartvoice.config.presets import HeartCodecConfig
from heartvoice.contracts.constants import CODES_PER_UNIT, LATENTS_PER_FRAME
from heartvoice.errors import InvalidRequestError

HOP_PER_UNIT = 80
"""Codes that a window moves on for each CODES_PER_UNIT of its length."""
DEFAULT_WINDOW = 4 * CODES_PER_UNIT
_RESIDUAL_DILATIONS = (1, 3, 5, 7, 9)


@dataclass(frozen=True)
class WindowPlan:
    """Lengths of one window, in codes and latent frames."""

    window: int = DEFAULT_WINDOW
    """Codes in a window, a multiple of 93 (7.44 s); other lengths would lay the audio at wrong distances."""

    def __post_init__(self) -> None:
        """Refuse other lengths."""
        if self.window < CODES_PER_UNIT or self.window % CODES_PER_UNIT:
            raise InvalidRequestError(
                f"window: expected a multiple of {CODES_PER_UNIT} codes (7.44 s), got {self.window}"
            )

    @property
    def hop(self) -> int:
        """Codes from one window's start to the next."""
        return self.window // CODES_PER_UNIT * HOP_PER_UNIT

    @property
    def overlap(self) -> int:
        """Codes that neighbouring windows share."""
        return self.window - self.hop

    @property
    def latent_window(self) -> int:
        """Latent frames in a window."""
        return LATENTS_PER_FRAME * self.window

    @property
    def latent_overlap(self) -> int:
        """Latent frames that neighbouring windows share: the later one's in-context length."""
        return LATENTS_PER_FRAME * self.overlap

    def n_windows(self, n_codes: int) -> int:
        """Windows of a song of `n_codes`, at least 1.

        Raises:
            InvalidRequestError: the song is empty.
        """
        if n_codes < 1:
            raise InvalidRequestError(f"codes: expected at least one frame, got {n_codes}")
        return max(1, math.ceil((n_codes - self.overlap) / self.hop))

    def padded(self, n_codes: int) -> int:
        """Codes of a song once its last window is full."""
        return self.n_windows(n_codes) * self.hop + self.overlap

    def start(self, index: int) -> int:
        """First code of window `index`."""
        return index * self.hop

    def context(self, index: int) -> int:
        """In-context latent frames of window `index`."""
        return self.latent_overlap if index else 0

    def ready_at(self, index: int, n_codes: int | None = None) -> int:
        """Codes that must exist before window `index` can run: all of its own, or a finished song's `n_codes`."""
        end = self.start(index) + self.window
        return end if n_codes is None else min(end, n_codes)

    def codes(self, codes: npt.NDArray[np.integer[Any]], index: int) -> npt.NDArray[np.integer[Any]]:
        """Codes of one window; what the song lacks is its own beginning, repeated.

        Args:
            codes: integers [K, n]: the whole song, or the part of it that exists if the window needs no more.
            index: window, from 0.

        Returns:
            [K, window].
        """
        columns = np.arange(self.start(index), self.start(index) + self.window)
        return codes[:, columns % codes.shape[1]]


def crossfade(previous: npt.NDArray[np.float32], following: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Fade linearly from one decoding of an overlap to the other: both float32 [C, N], and the result."""
    n_samples = previous.shape[-1]
    rise = np.arange(n_samples, dtype=np.float64) / max(n_samples - 1, 1)
    return ((1.0 - rise) * previous + rise * following).astype(np.float32)


def join_windows(audio: Iterable[npt.NDArray[np.float32]], overlap: int) -> Iterator[npt.NDArray[np.float32]]:
    """Lay decoded windows over each other, crossfading.

    Args:
        audio: float32 [C, N] of each window in order.
        overlap: samples that neighbouring windows share, at most N / 2.

    Yields:
        float32 [C, n] pieces, one a window and the last overlap, to be put end to end.
    """
    tail: npt.NDArray[np.float32] | None = None
    for window in audio:
        body = window[:, : window.shape[1] - overlap]
        if tail is not None:
            body = np.concatenate([crossfade(tail, window[:, :overlap]), body[:, overlap:]], axis=1)
        yield body
        tail = window[:, window.shape[1] - overlap :]
    if tail is not None:
        yield tail


def decoder_context(sizes: HeartCodecConfig) -> tuple[int, int]:
    """Latent frames of past and future that reach one sample of the causal scalar decoder.

    Source: heartcodec spec, section 10.
    """
    lookahead = (sizes.delay_kernel_size - 1) // 2
    past, rate = float(sizes.delay_kernel_size - 1 - lookahead), 1
    for factor in sizes.upsample_factors:
        past += 1 / rate
        rate *= factor
        past += (sizes.res_kernel_size - 1) * sum(_RESIDUAL_DILATIONS) / rate
    rate *= sizes.num_samples
    n_output_convs = 2 if sizes.num_samples > 1 else 1
    past += n_output_convs * (sizes.default_kernel_size - 1) / rate
    return math.ceil(past), lookahead
