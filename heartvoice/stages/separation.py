"""Separation as a stage: a recording into its stems, segment by segment.

Segments overlap and are joined with triangular weights, as `demucs.apply.apply_model` does with shifts 0; the network
sees one segment at a time and memory does not depend on the length. A recording may come in windows, one request
each: what a window leaves unfinished is its carry, and the samples are the same bit for bit.

Source: demucs 4.1.0, `apply` and `spec`; Rouard, Massa and Defossez, "Hybrid transformers for music source
separation", 2023.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.dsp import frames, hann
from heartvoice.config.presets import SeparatorConfig
from heartvoice.contracts.constants import MAX_RESPONSE_BYTES
from heartvoice.contracts.models import HTDEMUCS
from heartvoice.contracts.validation import check_finite
from heartvoice.errors import EngineError, InvalidRequestError
from heartvoice.runtime.networks import Networks

Samples = NDArray[np.float32]
_BYTES_PER_SAMPLE = 2 * 4
"""Of one stem: two channels of float32."""
_FRAMES_AT_ONCE = 4
"""Frames of the STFT that cover a sample."""
_WINDOW_SQUARES = 1.5
"""Sum of the squares of all Hann windows over a sample at that overlap."""


# ---------------------------------------------------------------------------------------------------------------- plan


@dataclass(frozen=True)
class Span:
    """One request's part of a recording: samples [start, end), of which the first `context` are only heard."""

    start: int
    end: int
    context: int
    """Samples that earlier requests have separated; a short last segment hears them."""
    more: bool
    """Whether another span follows."""


@dataclass(frozen=True)
class _Segment:
    """One call of the network: samples [offset, offset + length) become the middle of a segment."""

    offset: int
    length: int
    before: int
    """Samples of the segment in front of them: the recording's, or zeros before its start."""


class SeparationPlan:
    """Where segments begin and how they are weighted."""

    def __init__(self, sizes: SeparatorConfig, *, all_chunks: bool = False) -> None:
        """Make the weights.

        Args:
            sizes: of the separator.
            all_chunks: also run a last chunk that lies within the one before it, as `apply_model` does. It adds
                nothing but another blend of the last samples, and costs a sixth of 30 s.
        """
        self.segment, self.stride = sizes.segment_samples, sizes.stride_samples
        self.overlap = self.segment - self.stride
        self.all_chunks = all_chunks
        rise = np.arange(1, self.segment // 2 + 1)
        fall = np.arange(self.segment - self.segment // 2, 0, -1)
        ramp = np.concatenate([rise, fall]).astype(np.float32)
        self.weight: Samples = ramp / ramp.max()

    def n_segments(self, n_samples: int, *, carried: bool = False, more: bool = False) -> int:
        """Calls of the network for so many new samples.

        Args:
            n_samples: new samples.
            carried: a carry covers the first `overlap` of them.
            more: another request follows, so that they end where a segment does.
        """
        if self.all_chunks and not more:
            return math.ceil(n_samples / self.stride)
        uncovered = n_samples - self.overlap  # after the first `overlap` samples, each segment adds a stride
        return max(math.ceil(uncovered / self.stride), 0 if carried else 1)

    def segments(self, n_samples: int, *, carried: bool = False, more: bool = False) -> list[_Segment]:
        """The calls, in order; arguments as for `n_segments`."""
        found = []
        for index in range(self.n_segments(n_samples, carried=carried, more=more)):
            offset = index * self.stride
            length = min(self.segment, n_samples - offset)
            found.append(_Segment(offset, length, (self.segment - length) // 2))
        return found

    def spans(self, n_samples: int, segments_per_window: int = 1) -> list[Span]:
        """Cut a recording into windows that are given one by one, each with the carry of the one before it.

        Args:
            n_samples: of the recording, at least 1.
            segments_per_window: calls of the network for each window but the last, which may have others.
        """
        segments = self.segments(n_samples)
        n_full = sum(segment.length == self.segment for segment in segments)
        spans, first = [], 0
        while first + segments_per_window < len(segments) and first + segments_per_window <= n_full:
            start = first * self.stride
            first += segments_per_window
            spans.append(Span(start, (first - 1) * self.stride + self.segment, 0, True))
        start = first * self.stride
        needed = max(segment.before - (segment.offset - start) for segment in segments[first:])
        context = min(max(needed, 0), start)
        return [*spans, Span(start - context, n_samples, context, False)]


# ------------------------------------------------------------------------------------------------------------ requests


@dataclass(frozen=True)
class SeparationRequest:
    """Audio to separate: float32 [2, N] at the separator's rate, of which the first `context` samples are only heard.

    `carry` float32 [S', 2, O] is what the request before this one left unfinished, for the same sources. With `more`
    the audio ends where a segment does (see `SeparationPlan.spans`), and a carry is made.
    """

    audio: Samples
    context: int = 0
    carry: Samples | None = None
    sources: tuple[str, ...] = ()
    """Wanted stems in the order of the answer; none means all."""
    more: bool = False

    def check(self, sizes: SeparatorConfig, plan: SeparationPlan) -> None:
        """Refuse what cannot be separated.

        Raises:
            InvalidRequestError: names the field, the limit and the value.
        """
        shape = list(self.audio.shape)
        if self.audio.dtype != np.float32 or self.audio.ndim != 2 or shape[0] != 2:
            raise InvalidRequestError(f"audio: expected float32 [2, sample], got {self.audio.dtype} {shape}")
        n_new = shape[1] - self.context
        if self.context < 0 or n_new < 1:
            raise InvalidRequestError(f"context: expected 0 <= context < {shape[1]} samples, got {self.context}")
        check_finite("audio", self.audio)
        unknown = [name for name in self.sources if name not in sizes.sources]
        if unknown or len(set(self.sources)) != len(self.sources):
            raise InvalidRequestError(
                f"sources: expected different ones of {', '.join(sizes.sources)}, got {', '.join(self.sources)}"
            )
        self._check_carry(len(self.sources or sizes.sources), plan)
        if self.more and (n_new < plan.segment or (n_new - plan.segment) % plan.stride):
            raise InvalidRequestError(
                f"more: expected {plan.segment} new samples and a multiple of {plan.stride}, got {n_new}"
            )
        segments = plan.segments(n_new, carried=self.carry is not None, more=self.more)
        needed = max((segment.before - segment.offset for segment in segments), default=0)
        if self.carry is not None and self.context < needed:
            raise InvalidRequestError(f"context: expected at least {needed} samples, got {self.context}")

    def _check_carry(self, n_sources: int, plan: SeparationPlan) -> None:
        if self.carry is None:
            if self.context:
                raise InvalidRequestError(f"carry: missing, expected with a context of {self.context} samples")
            return
        expected = [n_sources, 2, plan.overlap]
        if self.carry.dtype != np.float32 or list(self.carry.shape) != expected:
            raise InvalidRequestError(
                f"carry: expected float32 {expected}, got {self.carry.dtype} {list(self.carry.shape)}"
            )
        check_finite("carry", self.carry)


@dataclass(frozen=True)
class StemsPiece:
    """Finished samples: `stems` float32 [S', 2, M]; `start` counts from the first sample after the context."""

    start: int
    stems: Samples


@dataclass(frozen=True)
class Carry:
    """The last item of a request with `more`: `carry` float32 [S', 2, O] goes into the next request."""

    carry: Samples


# ----------------------------------------------------------------------------------------------------------- transform


@dataclass(frozen=True)
class SegmentTransform:
    """STFT and inverse STFT of one segment, as htdemucs has them: Hann windows, hop a quarter, no Nyquist bin.

    Frames are placed so that there is one for each hop of the segment. In float32: the error is below 1e-6.
    """

    sizes: SeparatorConfig
    window: Samples = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Make the window."""
        if self.n_samples <= self.n_frames * self.hop - self.n_samples + self.padding:
            raise InvalidRequestError(
                f"segment: expected more than {self.padding + self.hop} samples, got {self.n_samples}"
            )
        object.__setattr__(self, "window", hann(self.sizes.nfft).astype(np.float32))

    @property
    def n_samples(self) -> int:
        """Samples of a segment."""
        return self.sizes.segment_samples

    @property
    def hop(self) -> int:
        """Samples between frames."""
        return self.sizes.nfft // _FRAMES_AT_ONCE

    @property
    def n_frames(self) -> int:
        """Frames of a segment."""
        return math.ceil(self.n_samples / self.hop)

    @property
    def padding(self) -> int:
        """Samples that are reflected before a segment."""
        return self.hop // 2 * 3

    def forward(self, mix: Samples) -> Samples:
        """Samples [2, L] to the spectrum [4, F, T]: left re, left im, right re, right im."""
        from scipy import fft

        n_fft = self.sizes.nfft
        after = self.padding + self.n_frames * self.hop - self.n_samples
        padded = np.pad(mix, ((0, 0), (self.padding, after)), mode="reflect")
        window = self.window / np.float32(math.sqrt(n_fft))
        transformed = fft.rfft(frames(padded, n_fft, self.hop) * window, axis=-1)[..., :-1]  # [2, T, F]
        spectrum = np.empty((2, 2, n_fft // 2, self.n_frames), np.float32)
        spectrum[:, 0], spectrum[:, 1] = transformed.real.swapaxes(1, 2), transformed.imag.swapaxes(1, 2)
        return spectrum.reshape(4, n_fft // 2, self.n_frames)

    def inverse(self, spectra: Samples) -> Samples:
        """Spectra [S, 4, F, T] to samples [S, 2, L]."""
        n_sources = len(spectra)
        channels = spectra.reshape(2 * n_sources, 2, *spectra.shape[2:])
        samples = np.stack([self._inverse_channel(channel) for channel in channels])
        return samples.reshape(n_sources, 2, self.n_samples)

    def _inverse_channel(self, channel: Samples) -> Samples:
        """Real and imaginary parts [2, F, T] to samples [L]; frames stay the last axis, so that nothing is copied."""
        from scipy import fft

        n_fft, hop, n_frames = self.sizes.nfft, self.hop, self.n_frames
        spectrum = np.zeros((n_fft // 2 + 1, n_frames), np.complex64)
        spectrum.real[:-1], spectrum.imag[:-1] = channel
        framed = fft.irfft(spectrum, axis=0, overwrite_x=True).reshape(_FRAMES_AT_ONCE, hop, n_frames)
        window = (self.window * np.float32(math.sqrt(n_fft) / _WINDOW_SQUARES)).reshape(_FRAMES_AT_ONCE, hop, 1)
        added = np.zeros((hop, n_frames + _FRAMES_AT_ONCE - 1), np.float32)
        for index in range(_FRAMES_AT_ONCE):
            added[:, index : index + n_frames] += framed[index] * window[index]
        joined: Samples = added.T.reshape(-1)[self.padding : self.padding + self.n_samples]
        return joined


# --------------------------------------------------------------------------------------------------------------- stage


class SeparateStage:
    """The separator over its network. Holds no state of any recording."""

    def __init__(self, networks: Networks, sizes: SeparatorConfig, *, all_chunks: bool = False) -> None:
        """Prepare; see `SeparationPlan` for `all_chunks`."""
        self._networks, self._sizes = networks, sizes
        self.plan = SeparationPlan(sizes, all_chunks=all_chunks)
        self._transform = SegmentTransform(sizes)

    def separate(self, request: SeparationRequest) -> Iterator[StemsPiece | Carry]:
        """Separate one request's audio.

        Args:
            request: what to separate.

        Yields:
            Pieces in order, each final and of at most `MAX_RESPONSE_BYTES`; with `more`, the carry at the end.

        Raises:
            InvalidRequestError: the request is wrong; before any network runs.
            RequestCancelledError: the job was cancelled.
            EngineError: the network failed.
        """
        request.check(self._sizes, self.plan)
        return self._pieces(request)

    def _pieces(self, request: SeparationRequest) -> Iterator[StemsPiece | Carry]:
        plan, carry = self.plan, request.carry
        names = request.sources or self._sizes.sources
        wanted = [self._sizes.sources.index(name) for name in names]
        n_new = request.audio.shape[1] - request.context
        segments = plan.segments(n_new, carried=carry is not None, more=request.more)
        # What lies in the current segment's place: weighted sums of stems, and sums of weights.
        sums, weights = np.zeros((len(wanted), 2, plan.segment), np.float32), np.zeros(plan.segment, np.float32)
        if carry is not None:
            sums[..., : plan.overlap], weights[: plan.overlap] = carry, plan.weight[plan.stride :]
        if not segments:
            yield from self._finished(0, sums[..., :n_new], weights[:n_new])
        for index, segment in enumerate(segments):
            weight = plan.weight[: segment.length]
            sums[..., : segment.length] += self._run(request, segment, wanted) * weight
            weights[: segment.length] += weight
            is_last = index == len(segments) - 1
            n_final = n_new - segment.offset if is_last and not request.more else plan.stride
            yield from self._finished(segment.offset, sums[..., :n_final], weights[:n_final])
            for buffer in (sums, weights):
                buffer[..., : plan.overlap] = buffer[..., plan.stride :].copy()
                buffer[..., plan.overlap :] = 0
        if request.more:
            yield Carry(sums[..., : plan.overlap].copy())

    def _finished(self, start: int, sums: Samples, weights: Samples) -> Iterator[StemsPiece]:
        """Weighted means, in pieces that fit a response."""
        most = MAX_RESPONSE_BYTES // (len(sums) * _BYTES_PER_SAMPLE)
        for first in range(0, len(weights), most):
            piece = slice(first, first + most)
            yield StemsPiece(start + first, np.ascontiguousarray(sums[..., piece] / weights[piece]))

    def _run(self, request: SeparationRequest, segment: _Segment, wanted: list[int]) -> Samples:
        """The wanted stems of one segment, [S', 2, length]."""
        begin = request.context + segment.offset - segment.before
        heard = request.audio[:, max(begin, 0) : begin + self.plan.segment]
        mix = np.zeros((2, self.plan.segment), np.float32)
        mix[:, max(-begin, 0) : max(-begin, 0) + heard.shape[1]] = heard
        inputs = {"mix": mix[None], "spectrum": self._transform.forward(mix)[None]}
        outputs = self._networks.run(HTDEMUCS.name, inputs)
        spectra, waves = (outputs[name][0][wanted].astype(np.float32, copy=False) for name in ("spectra", "waves"))
        if spectra.shape[1:] != inputs["spectrum"].shape[1:] or waves.shape[1:] != mix.shape:
            raise EngineError(f"htdemucs: unexpected spectra {list(spectra.shape)} and waves {list(waves.shape)}")
        stems = self._transform.inverse(spectra)
        stems += waves
        return stems[..., segment.before : segment.before + segment.length]
