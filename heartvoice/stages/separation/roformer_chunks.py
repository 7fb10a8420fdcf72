"""The RoFormers' loop over a recording: overlapping chunks with linear fades.

Source: roformer spec, section 4. Memory does not grow with the length: finished samples are handed on at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartvoice.errors import InvalidRequestError
from heartvoice.stages.separation.request import Carry

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

    @property
    def first_calls(self) -> int:
        """Fewest network calls of a first part: all later overlaps have equal weights, and its length is decided."""
        long_enough = -(-(3 * self.border - self.chunk) // self.step)
        return 1 + max(self.num_overlap - 1, long_enough)

    def run(
        self, mix: Samples, network: Network, *, carry: Samples | None = None, more: bool = False
    ) -> Iterator[Samples | Carry]:
        """Separate a recording, or a part of one that comes in several.

        Args:
            mix: samples [C, L]; an array in a mapped file works, too. A later part begins where its first chunk does.
            network: is called once for each chunk, in order.
            carry: what the part before this one left, [..., C, border].
            more: another part follows. This one ends where a chunk does; a first one has `first_calls` or more.

        Yields:
            Stems [..., C, n], one after the other, L samples in all; with `more` L - border, then the carry.
        """
        n_samples = mix.shape[-1]
        padding = self.padding(n_samples) if carry is None and not more else self.border
        before, after = padding if carry is None else 0, 0 if more else padding
        n_padded = before + n_samples + after
        total, weight = np.zeros((), np.float32), np.zeros(self.chunk, np.float32)
        if carry is not None:
            total = np.zeros((*carry.shape[:-1], self.chunk), np.float32)
            total[..., : self.border], weight[: self.border] = carry, self._carried_weight()
        for start in range(0, n_padded - self.border if more else n_padded, self.step):
            length = min(self.chunk, n_padded - start)
            part = _reflected(mix, start - before, length)
            stems = network(self._filled(part))[..., :length]
            is_first, is_last = carry is None and not start, not more and start + self.chunk >= n_padded
            fade = self._fade(is_first=is_first, is_last=is_last)[:length]
            if not total.ndim:
                total = np.zeros((*stems.shape[:-1], self.chunk), np.float32)
            total[..., :length] += stems * fade
            weight[:length] += fade
            done = min(self.step, n_padded - start)
            first, last = (min(max(before - start, 0), done), min(done, before + n_samples - start))
            if first < last:
                yield _ratio(total[..., first:last], weight[first:last])
            total, weight = _shifted(total, self.step), _shifted(weight, self.step)
        if more:
            yield Carry(total[..., : self.border].copy())

    def _filled(self, part: Samples) -> Samples:
        """Fill a short chunk at its end: by reflection if it is long enough, else with zeros."""
        missing = self.chunk - part.shape[-1]
        if not missing:
            return part
        long_enough = part.shape[-1] > self.chunk // 2 + 1
        return np.pad(part, ((0, 0), (0, missing)), mode="reflect" if long_enough else "constant")

    def _carried_weight(self) -> Samples:
        """Sums of the weights that a carry holds, added up as they were."""
        weight, fade = np.zeros(self.chunk, np.float32), self._fade(is_first=False, is_last=False)
        for _ in range(self.num_overlap):
            weight = _shifted(weight + fade, self.step)
        return weight[: self.border]

    def _fade(self, *, is_first: bool, is_last: bool) -> Samples:
        """Weights of a chunk."""
        length = self.chunk // 10
        ramp = np.linspace(0, 1, length, dtype=np.float32)
        if not self.as_published:
            ramp = np.maximum(ramp, _LEAST_WEIGHT)
        weights = np.ones(self.chunk, np.float32)
        if not is_first:
            weights[:length] = ramp
        if is_first or not is_last:
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
