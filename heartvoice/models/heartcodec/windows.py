"""Splits a song into codec windows and joins them. No torch: serving stages use it.

Source: heartcodec spec, section 7, with three corrections: every song is padded by the same rule (the reference loses
the last overlap of some lengths), the target length is exactly n * hop, and an empty song is refused.
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
"""Codes from one window's start to the next, per CODES_PER_UNIT codes of window length."""
DEFAULT_WINDOW = 4 * CODES_PER_UNIT
_RESIDUAL_DILATIONS = (1, 3, 5, 7, 9)


@dataclass(frozen=True)
class WindowPlan:
    """Lengths of a window, in codes and latent frames."""

    window: int = DEFAULT_WINDOW
    """Codes in a window, a multiple of 93 (7.44 s); other lengths would misplace the audio."""

    def __post_init__(self) -> None:
        """Check the window length."""
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
        """Latent frames that neighbouring windows share; the later window's in-context length."""
        return LATENTS_PER_FRAME * self.overlap

    def n_windows(self, n_codes: int) -> int:
        """Return the number of windows of a song of `n_codes`, at least 1.

        Raises:
            InvalidRequestError: the song is empty.
        """
        if n_codes < 1:
            raise InvalidRequestError(f"codes: expected at least one frame, got {n_codes}")
        return max(1, math.ceil((n_codes - self.overlap) / self.hop))

    def padded(self, n_codes: int) -> int:
        """Return the song's length in codes after padding to a full last window."""
        return self.n_windows(n_codes) * self.hop + self.overlap

    def start(self, index: int) -> int:
        """Return the first code of window `index`."""
        return index * self.hop

    def context(self, index: int) -> int:
        """Return the number of in-context latent frames of window `index`."""
        return self.latent_overlap if index else 0

    def ready_at(self, index: int, n_codes: int | None = None) -> int:
        """Codes that window `index` needs: its own, or a finished song's `n_codes`."""
        end = self.start(index) + self.window
        return end if n_codes is None else min(end, n_codes)

    def codes(self, codes: npt.NDArray[np.integer[Any]], index: int) -> npt.NDArray[np.integer[Any]]:
        """Return the codes of one window; a short song is extended by repeating its beginning.

        Args:
            codes: integers [K, n]: the whole song, or its generated part if the window needs no more.
            index: window index, from 0.

        Returns:
            [K, window].
        """
        columns = np.arange(self.start(index), self.start(index) + self.window)
        return codes[:, columns % codes.shape[1]]


def crossfade(previous: npt.NDArray[np.float32], following: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Crossfade linearly from `previous` to `following`, two decodings of an overlap, float32 [C, N]."""
    n_samples = previous.shape[-1]
    rise = np.arange(n_samples, dtype=np.float64) / max(n_samples - 1, 1)
    return ((1.0 - rise) * previous + rise * following).astype(np.float32)


def join_windows(audio: Iterable[npt.NDArray[np.float32]], overlap: int) -> Iterator[npt.NDArray[np.float32]]:
    """Overlap decoded windows with a crossfade.

    Args:
        audio: float32 [C, N] of each window in order.
        overlap: samples that neighbouring windows share, at most N / 2.

    Yields:
        Consecutive float32 [C, n]: one piece per window, then the last overlap.
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
    """Past and future latent frames that affect one sample of the causal scalar decoder.

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
