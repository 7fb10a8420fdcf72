"""The vocoder as a stage: it turns mel frames of any length into samples, chunk by chunk.

Source: seed_vc spec, section 11.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heartvoice.checkpoints.bigvgan import POST_KERNEL, PRE_KERNEL
from heartvoice.config.svc import BigvganConfig
from heartvoice.contracts.field_checks import check_finite
from heartvoice.contracts.graphs import VOCODER
from heartvoice.errors import InvalidRequestError
from heartvoice.runtime.networks import Networks, run_finite

VOCODER_CHUNK = 256
"""Mel frames of one call without its context, 3 s. Bounds memory, whatever the length."""
ACTIVATION_REACH = 5
"""Samples on each side that an activation reads with its two filters."""

Mel = NDArray[np.float32]
Samples = NDArray[np.float32]


def context_frames(sizes: BigvganConfig) -> tuple[int, int]:
    """Past and future frames that the samples of one frame depend on: a chunk's context.

    The reach is followed from the samples of frame 0 back to the mel, layer by layer; among parallel blocks the widest
    counts. Frames further away are not read, so that the padding at a chunk's ends has no effect.
    """
    first, last = 0, sizes.hop - 1
    first, last = first - POST_KERNEL // 2 - ACTIVATION_REACH, last + POST_KERNEL // 2 + ACTIVATION_REACH
    reach = max(
        sum(2 * ACTIVATION_REACH + (dilation + 1) * (kernel // 2) for dilation in dilations)
        for kernel, dilations in zip(sizes.resblock_kernel_sizes, sizes.resblock_dilation_sizes, strict=True)
    )
    for rate, kernel in zip(reversed(sizes.upsample_rates), reversed(sizes.upsample_kernel_sizes), strict=True):
        first, last = first - reach, last + reach
        side = (kernel - rate) // 2  # output sample n uses tap n + side - j * rate of input j
        first, last = -(-(first + side - kernel + 1) // rate), (last + side) // rate
    return PRE_KERNEL // 2 - first, last + PRE_KERNEL // 2


class VocodeStage:
    """Runs BigVGAN over one network. Holds no state of any song."""

    def __init__(self, networks: Networks, sizes: BigvganConfig, *, chunk_frames: int = VOCODER_CHUNK) -> None:
        self._networks = networks
        self._sizes = sizes
        self._chunk = chunk_frames
        self._past, self._future = context_frames(sizes)

    def decode(self, mel: Mel) -> Samples:
        """Turn frames into samples, equal to those of one network call up to float rounding.

        Args:
            mel: float32 [M, T], natural logarithms of mel magnitudes; T at least 1.

        Returns:
            float32 [T * hop] at 44.1 kHz, in [-1, 1].

        Raises:
            InvalidRequestError: the frames have the wrong shape, or a value is not finite.
            RequestCancelledError: the job was cancelled.
        """
        pieces = self.stream(mel)
        audio = np.empty(mel.shape[1] * self._sizes.hop, np.float32)
        at = 0
        for piece in pieces:
            audio[at : at + piece.size] = piece
            at += piece.size
        return audio

    def stream(self, mel: Mel) -> Iterator[Samples]:
        """Yield the samples of `decode`, one piece for each chunk; arguments and errors as there.

        The frames are checked at once, not only when the first piece is requested.
        """
        self._check(mel)
        return self._pieces(mel)

    def _pieces(self, mel: Mel) -> Iterator[Samples]:
        hop, n_frames = self._sizes.hop, mel.shape[1]
        n_chunks = -(-n_frames // self._chunk)
        for index in range(n_chunks):  # of equal lengths up to one frame: no short chunk needs a whole context
            start, end = (n_frames * part // n_chunks for part in (index, index + 1))
            first = max(0, start - self._past)
            frames = np.ascontiguousarray(mel[None, :, first : end + self._future])
            audio = run_finite(self._networks, VOCODER.name, {"mel": frames})["audio"]
            yield audio[0, 0, (start - first) * hop : (end - first) * hop].astype(np.float32, copy=False)

    def _check(self, mel: Mel) -> None:
        if mel.ndim != 2 or mel.shape[0] != self._sizes.num_mels or not mel.shape[1] or mel.dtype != np.float32:
            raise InvalidRequestError(
                f"mel: expected float32 [{self._sizes.num_mels}, at least 1], got {mel.dtype} {list(mel.shape)}"
            )
        for start in range(0, mel.shape[1], self._chunk):  # in parts, because a check makes copies
            check_finite("mel", mel[:, start : start + self._chunk])
