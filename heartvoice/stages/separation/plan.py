"""Where a recording is cut into the separator's segments, and how htdemucs weights them.

htdemucs' segments overlap and are joined with triangular weights, as `demucs.apply.apply_model` does with shifts 0.

Source: demucs 4.1.0, `apply`; Rouard, Massa and Defossez, "Hybrid transformers for music source separation", 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from heartvoice.config.presets import SeparatorConfig

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Span:
    """One request's part of a recording: samples [start, end), of which the first `context` are only read."""

    start: int
    end: int
    context: int
    """Samples that earlier requests have separated; a short last segment reads them."""
    more: bool
    """True if another span follows."""


@dataclass(frozen=True)
class Segment:
    """One call of the network: samples [offset, offset + length) become the middle of a segment."""

    offset: int
    length: int
    before: int
    """Samples of the segment before them: the recording's, or zeros before its start."""


class Plan(Protocol):
    """How an engine cuts a recording into windows of one segment, one request each."""

    overlap: int
    """Samples of a carry."""

    def window(self, index: int) -> tuple[int, int]:
        """Return start and end of the audio of request `index`, if more samples follow that end."""
        ...

    def kept(self, index: int) -> int:
        """Return the first sample that request `index`, or the last one in its place, may read."""
        ...

    def spans(self, n_samples: int, segments_per_window: int = 1) -> list[Span]:
        """Cut a recording of `n_samples`, at least 1, into the requests of these windows."""
        ...

    def fault(self, n_new: int, context: int, /, *, carried: bool, more: bool) -> str:
        """Return what is wrong with a request of `n_new` samples after its context, as field and message; or ""."""
        ...


def adjacent_spans(plan: Plan, n_samples: int, segments_per_window: int) -> list[Span]:
    """Return `Plan.spans` of a plan whose last request reads nothing before its window."""
    found, first = list[Span](), 0
    while plan.window(first + segments_per_window - 1)[1] < n_samples:
        start = plan.window(first)[0]
        first += segments_per_window
        found.append(Span(start, plan.window(first - 1)[1], 0, True))
    return [*found, Span(plan.window(first)[0], n_samples, 0, False)]


class SeparationPlan:
    """The segments of a recording for htdemucs, and their weights."""

    def __init__(self, sizes: SeparatorConfig, *, all_chunks: bool = False) -> None:
        """Make the weights.

        Args:
            sizes: of the separator.
            all_chunks: also run a last chunk that lies within the one before it, as `apply_model` does. It only
                blends the last samples once more, and takes a sixth of the time of 30 s.
        """
        self.segment, self.stride = sizes.segment_samples, sizes.stride_samples
        self.overlap = self.segment - self.stride
        self.all_chunks = all_chunks
        rise = np.arange(1, self.segment // 2 + 1)
        fall = np.arange(self.segment - self.segment // 2, 0, -1)
        ramp = np.concatenate([rise, fall]).astype(np.float32)
        self.weight: Samples = ramp / ramp.max()

    def n_segments(self, n_samples: int, *, carried: bool = False, more: bool = False) -> int:
        """The number of network calls for `n_samples` new samples.

        Args:
            n_samples: new samples.
            carried: a carry covers the first `overlap` of them.
            more: another request follows; the samples end where a segment does.
        """
        if self.all_chunks and not more:
            return math.ceil(n_samples / self.stride)
        uncovered = n_samples - self.overlap  # after the first `overlap` samples, each segment adds a stride
        return max(math.ceil(uncovered / self.stride), 0 if carried else 1)

    def segments(self, n_samples: int, *, carried: bool = False, more: bool = False) -> list[Segment]:
        """The calls, in order; arguments as for `n_segments`."""
        found = []
        for index in range(self.n_segments(n_samples, carried=carried, more=more)):
            offset = index * self.stride
            length = min(self.segment, n_samples - offset)
            found.append(Segment(offset, length, (self.segment - length) // 2))
        return found

    def window(self, index: int) -> tuple[int, int]:
        """See `Plan.window`."""
        return index * self.stride, index * self.stride + self.segment

    def kept(self, index: int) -> int:
        """See `Plan.kept`: a short last segment reads what lies before it."""
        return max(0, index * self.stride - self.segment)

    def fault(self, n_new: int, context: int, *, carried: bool, more: bool) -> str:
        """See `Plan.fault`."""
        if more and (n_new < self.segment or (n_new - self.segment) % self.stride):
            return f"more: expected {self.segment} new samples and a multiple of {self.stride}, got {n_new}"
        segments = self.segments(n_new, carried=carried, more=more)
        needed = max((segment.before - segment.offset for segment in segments), default=0)
        if carried and context < needed:
            return f"context: expected at least {needed} samples, got {context}"
        return ""

    def spans(self, n_samples: int, segments_per_window: int = 1) -> list[Span]:
        """Cut a recording into windows for one request each, each with the carry of the one before it.

        Args:
            n_samples: of the recording, at least 1.
            segments_per_window: network calls for each window but the last, which may have more or fewer.
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
