"""Streaming separation: the vocals of a recording that may still be coming, window by window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.mixer import MixPiece
from heartvoice.audio.sample_queue import SampleQueue
from heartvoice.contracts.constants import SAMPLE_RATE_HZ, STEM_RATE_HZ
from heartvoice.stages.separation.plan import Plan
from heartvoice.stages.separation.request import SeparationRequest

Audio = NDArray[np.float32]

VOCALS = "vocals"
_GRID = STEM_RATE_HZ // 10
"""Samples at 44.1 kHz that are resampled at once, so that the result does not depend on the chunks of the input."""


@dataclass(frozen=True, eq=False)
class RecordingChunk:
    """A chunk of a recording: [2, N] at 48 kHz, and [2, M] at 44.1 kHz for the separator.

    The two may end at different times, but all chunks together have the same duration at both rates.
    """

    audio: Audio
    mix: Audio


@dataclass(frozen=True, eq=False)
class SeparatedWindow:
    """A window's vocals [2, M] at 44.1 kHz, and the recording there at both rates."""

    vocals: Audio
    mix: Audio
    recording: Audio
    last: bool


def resample_stream(pieces: Iterable[Audio]) -> Iterator[RecordingChunk]:
    """Turn pieces [2, N] at 48 kHz into chunks at both rates."""
    import soxr

    grid = SAMPLE_RATE_HZ // 10
    waiting = SampleQueue((2,))
    stream = soxr.ResampleStream(SAMPLE_RATE_HZ, STEM_RATE_HZ, 2, "float32", "VHQ")

    def run(audio: Audio, last: bool = False) -> Audio:
        return np.ascontiguousarray(stream.resample_chunk(np.ascontiguousarray(audio.T), last=last).T)

    n_in = n_out = 0
    for piece in pieces:
        n_in += piece.shape[1]
        waiting.push(piece)
        blocks = [run(waiting.take(grid)) for _ in range(len(waiting) // grid)]
        mix = np.concatenate([np.empty((2, 0), np.float32), *blocks], axis=1)
        n_out += mix.shape[1]
        yield RecordingChunk(piece, mix)
    rest = run(waiting.take(len(waiting)), last=True)
    missing = round(n_in * STEM_RATE_HZ / SAMPLE_RATE_HZ) - n_out - rest.shape[1]
    if missing > 0:  # soxr drops the last sample by rounding
        rest = np.concatenate([rest, np.zeros((2, missing), np.float32)], axis=1)
    yield RecordingChunk(np.empty((2, 0), np.float32), rest)


class _Windows:
    """Cuts a recording, as it comes, into the separator's requests."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._first = self._base = 0
        """Number of the next segment, and the first sample of `_audio`."""
        self._audio: Audio = np.empty((2, 0), np.float32)

    def push(self, mix: Audio) -> Iterator[tuple[Audio, int]]:
        """Add [2, M]; yields audio and context of each complete request but the last one."""
        self._audio = mix if not self._audio.shape[1] else np.concatenate([self._audio, mix], axis=1)
        while True:
            start, end = self._plan.window(self._first)
            if self._base + self._audio.shape[1] <= end:
                return
            yield self._audio[:, start - self._base : end - self._base], 0
            self._first += 1
            keep = self._plan.kept(self._first)
            self._audio, self._base = self._audio[:, keep - self._base :], keep

    def finish(self) -> tuple[Audio, int]:
        """Audio and context of the last request."""
        span = self._plan.spans(self._base + self._audio.shape[1])[-1]
        return self._audio[:, span.start - self._base :], span.context


class StreamingSeparator:
    """Separates each window as soon as the recording has its samples.

    Args:
        separate: turns one window into final stems [1, 2, M] and, if more follows, the carry.
        plan: of the separator.
    """

    def __init__(self, separate: Callable[[SeparationRequest], tuple[Audio, Audio | None]], plan: Plan) -> None:
        self._separate, self._windows = separate, _Windows(plan)
        self._carry: Audio | None = None
        self._recording, self._mix = SampleQueue((2,)), SampleQueue((2,))
        self._at = self._given = 0

    def run(self, source: Iterable[RecordingChunk]) -> Iterator[SeparatedWindow]:
        """Yield the windows of a recording. Every sample is in one of them."""
        for piece in source:
            self._recording.push(piece.audio)
            self._mix.push(piece.mix)
            for audio, context in self._windows.push(piece.mix):
                yield self._separated(audio, context, more=True)
        if len(self._recording):  # empty if a song ends before its first frame
            yield self._separated(*self._windows.finish(), more=False)

    def _separated(self, audio: Audio, context: int, *, more: bool) -> SeparatedWindow:
        request = SeparationRequest(audio=audio, context=context, carry=self._carry, sources=(VOCALS,), more=more)
        stems, self._carry = self._separate(request)
        vocals = stems[0]
        self._at += vocals.shape[1]
        upto = min(len(self._recording), round(self._at * SAMPLE_RATE_HZ / STEM_RATE_HZ) - self._given)
        recording = self._recording.take(upto if more else len(self._recording))
        self._given += recording.shape[1]
        return SeparatedWindow(vocals, self._mix.take(vocals.shape[1]), recording, not more)


class StemSplitter:
    """Splits a recording into instrumental and vocals at 48 kHz; their sum is the recording."""

    def __init__(self) -> None:
        import soxr

        self._stream = soxr.ResampleStream(STEM_RATE_HZ, SAMPLE_RATE_HZ, 2, "float32", "VHQ")
        self._recording, self._vocals, self._found = SampleQueue((2,)), SampleQueue((2,)), SampleQueue((2,))
        self._n_out = 0

    def push(self, window: SeparatedWindow) -> MixPiece | None:
        """Add a window; returns the samples that became final, or None."""
        self._recording.push(window.recording)
        self._vocals.push(window.vocals)
        while len(self._vocals) >= _GRID or (window.last and len(self._vocals)):
            block = self._vocals.take(min(_GRID, len(self._vocals)))
            last = window.last and not len(self._vocals)
            out = self._stream.resample_chunk(np.ascontiguousarray(block.T), last=last)
            self._found.push(np.ascontiguousarray(out.T))
        if window.last:
            self._found.push(np.zeros((2, max(0, len(self._recording) - len(self._found))), np.float32))
        n = min(len(self._recording), len(self._found))
        if not n:
            return None
        audio, sung = self._recording.take(n), self._found.take(n)
        start, self._n_out = self._n_out, self._n_out + n
        return MixPiece(audio, audio - sung, sung, start)
