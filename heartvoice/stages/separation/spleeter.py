"""The separation of one request by Spleeter: masks on the STFT, segment by segment.

Segments are laid edge to edge on the STFT's frames, as upstream lays them. Samples at a seam get frames of both
segments; the sum of the earlier ones travels as the carry.

Source: spleeter 2.4.2 (MIT).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.dsp import frames, hann
from heartvoice.config.presets import SpleeterConfig
from heartvoice.contracts.constants import MAX_LEVEL
from heartvoice.contracts.models import SPLEETER
from heartvoice.errors import EngineError
from heartvoice.runtime.networks import Networks, check_size, run_finite
from heartvoice.stages.separation.plan import Span, adjacent_spans
from heartvoice.stages.separation.request import Carry, SeparationRequest

Samples = NDArray[np.float32]
_FLOOR = np.float32(1e-10)
"""Added to the sum of the estimates' squares, and shared by the sources."""


class SpleeterPlan:
    """Where segments of Spleeter's frames lie in a recording; a `Plan`.

    Frame k covers samples [hop k - n_fft, hop k): `lead` zeros come before the recording.
    """

    def __init__(self, sizes: SpleeterConfig) -> None:
        self.segment, self.stride = sizes.segment_samples, sizes.stride_samples
        self.overlap = self.segment - self.stride
        self.hop, self.lead = sizes.hop, sizes.n_fft

    def window(self, index: int) -> tuple[int, int]:
        """See `Plan.window`."""
        start = index * self.stride - self.lead
        return max(0, start), start + self.segment

    def kept(self, index: int) -> int:
        """See `Plan.kept`: a segment reads nothing before itself."""
        return self.window(index)[0]

    def n_frames(self, n_new: int, *, carried: bool, more: bool) -> int:
        """Return the frames that a request of `n_new` samples adds."""
        n_samples = n_new + (0 if carried else self.lead)
        return (n_samples - self.overlap) // self.hop if more else -(-n_samples // self.hop)

    def fault(self, n_new: int, _context: int, *, carried: bool, more: bool) -> str:
        """See `Plan.fault`."""
        first = self.segment - (0 if carried else self.lead)
        if more and (n_new < first or (n_new - first) % self.stride):
            return f"more: expected {first} new samples and a multiple of {self.stride}, got {n_new}"
        return ""

    def spans(self, n_samples: int, segments_per_window: int = 1) -> list[Span]:
        """See `Plan.spans`."""
        return adjacent_spans(self, n_samples, segments_per_window)


class SpleeterTransform:
    """STFT and inverse STFT of frames: periodic Hann windows, hop a quarter, no scaling, in float32."""

    def __init__(self, sizes: SpleeterConfig) -> None:
        self._n_fft, self._hop = sizes.n_fft, sizes.hop
        self._window = hann(sizes.n_fft).astype(np.float32)
        self._inverse_window = (hann(sizes.n_fft) * 2 / 3).astype(np.float32)  # Hann's squares add up to 1.5

    def forward(self, audio: Samples) -> NDArray[np.complex64]:
        """Samples [2, hop (T - 1) + n_fft] to the spectrum [2, T, n_fft / 2 + 1]."""
        from scipy import fft

        spectrum: NDArray[np.complex64] = fft.rfft(frames(audio, self._n_fft, self._hop) * self._window, axis=-1)
        return spectrum

    def inverse(self, spectra: NDArray[np.complex64]) -> Samples:
        """Spectra [S, 2, T, n_fft / 2 + 1] to the sums of their frames, [S, 2, hop (T - 1) + n_fft]."""
        from scipy import fft

        framed: Samples = fft.irfft(spectra, axis=-1, overwrite_x=True)
        framed *= self._inverse_window
        n_sources, _, n_frames, _ = framed.shape
        n_parts = self._n_fft // self._hop
        parts = framed.reshape(n_sources, 2, n_frames, n_parts, self._hop)
        added: Samples = np.zeros((n_sources, 2, n_frames + n_parts - 1, self._hop), np.float32)
        for part in range(n_parts):
            added[:, :, part : part + n_frames] += parts[:, :, :, part]
        return added.reshape(n_sources, 2, -1)


class SpleeterEngine:
    """Spleeter over its network; a `SeparationEngine`."""

    def __init__(self, networks: Networks, sizes: SpleeterConfig) -> None:
        self._networks, self._sizes = networks, sizes
        self.plan = SpleeterPlan(sizes)
        self._transform = SpleeterTransform(sizes)

    def run(self, request: SeparationRequest, wanted: list[int]) -> Iterator[Samples | Carry]:
        """See `SeparationEngine.run`. The carry of a residual is that of the sources which it is left by."""
        plan, carry = self.plan, request.carry
        audio = request.audio[:, request.context :]
        n_new, lead = audio.shape[1], plan.lead if carry is None else 0
        n_frames = plan.n_frames(n_new, carried=carry is not None, more=request.more)
        masks = [self._mask_of(source) for source in wanted]
        rows = sorted(set(masks))  # vocals and their residual have one mask
        sums = np.zeros((len(rows), 2, plan.overlap), np.float32)
        if carry is not None:
            sums = np.stack([carry[masks.index(row)] for row in rows])
        for first in range(0, n_frames, self._sizes.frames):
            count = min(self._sizes.frames, n_frames - first)
            begin = first * plan.hop - lead
            added = self._segment(_cut(audio, begin, (count - 1) * plan.hop + self._sizes.n_fft), rows)
            added[..., : plan.overlap] += sums
            sums = added[..., count * plan.hop :]
            # Samples that no later frame covers, without the zeros before and after the recording.
            is_end = first + count == n_frames and not request.more
            end = n_new if is_end else begin + count * plan.hop
            final = added[..., max(0, -begin) : end - begin]
            if final.shape[2]:
                yield self._stems(audio[:, max(0, begin) : end], [final[rows.index(mask)] for mask in masks], wanted)
        if request.more:
            yield Carry(np.stack([sums[rows.index(mask)] for mask in masks]))

    def _is_residual(self, source: int) -> bool:
        return self._sizes.residual and source == len(self._sizes.sources) - 1

    def _mask_of(self, source: int) -> tuple[int, ...]:
        """The networks whose masks are added up for a source: its own, or of a residual all the others."""
        return tuple(range(source)) if self._is_residual(source) else (source,)

    def _stems(self, mix: Samples, masked: list[Samples], wanted: list[int]) -> Samples:
        pairs = zip(wanted, masked, strict=True)
        stems: Samples = np.stack([mix - audio if self._is_residual(source) else audio for source, audio in pairs])
        check_size(SPLEETER.name, stems, MAX_LEVEL)
        return stems

    def _segment(self, audio: Samples, rows: list[tuple[int, ...]]) -> Samples:
        """Each row's masked samples, [rows, 2, M], of the samples [2, M] of at most one segment."""
        spectrum = self._transform.forward(audio)
        masks = self._masks(np.abs(spectrum[..., : self._sizes.bins]))
        masked = np.zeros((len(rows), *spectrum.shape), np.complex64)
        for index, row in enumerate(rows):
            mask = masks[row[0]] if len(row) == 1 else masks[list(row)].sum(axis=0)
            masked[index, ..., : self._sizes.bins] = spectrum[..., : self._sizes.bins] * mask
            if self._sizes.mask_above == "average":
                mean = mask.mean(axis=-1, keepdims=True)
                masked[index, ..., self._sizes.bins :] = spectrum[..., self._sizes.bins :] * mean
        return self._transform.inverse(masked)

    def _masks(self, magnitudes: Samples) -> Samples:
        """Masks [S, 2, T, F] of magnitudes [2, T, F]; the network gets zeros up to its own number of frames."""
        n_frames = magnitudes.shape[1]
        padded = np.zeros((2, self._sizes.frames, self._sizes.bins), np.float32)
        padded[:, :n_frames] = magnitudes
        outputs = run_finite(self._networks, SPLEETER.name, {"magnitudes": padded[None]})
        estimates = outputs["estimates"][0].astype(np.float32, copy=False)
        n_sources = len(self._sizes.sources)
        if estimates.shape != (n_sources, *padded.shape):
            raise EngineError(f"spleeter: unexpected estimates {list(estimates.shape)}")
        squares = np.square(estimates[:, :, :n_frames])
        masks: Samples = (squares + _FLOOR / n_sources) / (squares.sum(axis=0) + _FLOOR)
        return masks


def _cut(audio: Samples, begin: int, length: int) -> Samples:
    """Samples [begin, begin + length) of [2, N], with zeros before and after the recording."""
    end = begin + length
    if begin >= 0 and end <= audio.shape[1]:
        return audio[:, begin:end]
    cut = np.zeros((2, length), np.float32)
    read = audio[:, max(0, begin) : max(0, end)]
    cut[:, max(0, -begin) : max(0, -begin) + read.shape[1]] = read
    return cut
