"""The RoFormers' loop over a recording: overlapping chunks with linear fades.

Source: roformer spec, section 4. Memory does not grow with the length: finished samples are handed on at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartvoice.errors import InvalidRequestError

Samples = NDArray[np.float32]
Network = Callable[[Samples], Samples]
"""Samples [C, chunk] to stems [..., C, chunk]."""
_LEAST_WEIGHT = np.float32(1e-9)
"""Weight of the outermost samples of a fade: a sample that no other chunk covers keeps its value."""


@dataclass(frozen=True)
class ChunkLoop:
    """Chunks start at every multiple of the step before the end of the recording."""

    chunk: int
    """Samples of a chunk."""
    num_overlap: int = 2
    """Chunks that cover a sample."""
    as_published: bool = False
    """If True, a sample whose weights sum to zero becomes 0, as in the published loop; else it keeps its value."""

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            InvalidRequestError: a chunk has no step or no fade.
        """
        if self.num_overlap < 1:
            raise InvalidRequestError(f"num_overlap: expected 1 or more, got {self.num_overlap}")
        if self.chunk < 10 or self.chunk < self.num_overlap:
            raise InvalidRequestError(f"chunk: expected {max(10, self.num_overlap)} samples or more, got {self.chunk}")

    @property
    def step(self) -> int:
        """Samples between the starts of neighbouring chunks."""
        return self.chunk // self.num_overlap

    @property
    def border(self) -> int:
        """Samples that are reflected at both ends of a long recording."""
        return self.chunk - self.step

    def padding(self, n_samples: int) -> int:
        """Samples that are reflected at each end: the border, or none if the recording is short."""
        return self.border if n_samples > 2 * self.border else 0

    def n_calls(self, n_samples: int) -> int:
        """Network calls for a recording."""
        return -(-(n_samples + 2 * self.padding(n_samples)) // self.step)

    def run(self, mix: Samples, network: Network) -> Iterator[Samples]:
        """Separate a recording.

        Args:
            mix: samples [C, L]; an array in a mapped file works, too.
            network: is called once for each chunk, in order.

        Yields:
            Stems [..., C, n], one after the other, L samples in all.
        """
        n_samples = mix.shape[-1]
        padding = self.padding(n_samples)
        n_padded = n_samples + 2 * padding
        total, weight = np.zeros((), np.float32), np.zeros(self.chunk, np.float32)
        for start in range(0, n_padded, self.step):
            length = min(self.chunk, n_padded - start)
            part = _reflected(mix, start - padding, length)
            stems = network(self._filled(part))[..., :length]
            fade = self._fade(start, n_padded)[:length]
            if not total.ndim:
                total = np.zeros((*stems.shape[:-1], self.chunk), np.float32)
            total[..., :length] += stems * fade
            weight[:length] += fade
            done = min(self.step, n_padded - start)
            first, last = (min(max(padding - start, 0), done), min(done, padding + n_samples - start))
            if first < last:
                yield _ratio(total[..., first:last], weight[first:last])
            total, weight = _shifted(total, self.step), _shifted(weight, self.step)

    def _filled(self, part: Samples) -> Samples:
        """Fill a short chunk at its end: by reflection if it is long enough, else with zeros."""
        missing = self.chunk - part.shape[-1]
        if not missing:
            return part
        long_enough = part.shape[-1] > self.chunk // 2 + 1
        return np.pad(part, ((0, 0), (0, missing)), mode="reflect" if long_enough else "constant")

    def _fade(self, start: int, n_padded: int) -> Samples:
        """Weights of a chunk."""
        length = self.chunk // 10
        ramp = np.linspace(0, 1, length, dtype=np.float32)
        if not self.as_published:
            ramp = np.maximum(ramp, _LEAST_WEIGHT)
        weights = np.ones(self.chunk, np.float32)
        if start:
            weights[:length] = ramp
        if not start or start + self.chunk < n_padded:
            weights[-length:] = ramp[::-1]
        return weights


def _reflected(mix: Samples, start: int, length: int) -> Samples:
    """Samples [start, start + length) of a recording that is reflected at both ends."""
    n_samples = mix.shape[-1]
    if start >= 0 and start + length <= n_samples:
        return mix[..., start : start + length]
    position = np.abs(np.arange(start, start + length))
    return mix[..., np.where(position < n_samples, position, 2 * (n_samples - 1) - position)]


def _ratio(total: Samples, weight: Samples) -> Samples:
    """Weighted means; 0 where there is no weight."""
    mean = np.zeros_like(total)
    return np.divide(total, weight, out=mean, where=weight > 0)


def _shifted(values: Samples, step: int) -> Samples:
    """Drop the first `step` samples and add as many zeros."""
    shifted = np.zeros_like(values)
    shifted[..., : values.shape[-1] - step] = values[..., step:]
    return shifted
