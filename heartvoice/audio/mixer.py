"""The mix: a recording's instrumental with converted vocals in place of the old ones, streamed.

    instrumental = recording - resampled old vocals
    output       = limiter(instrumental + resampled new vocals)

so that a converter that returns its input gives the recording back (if its true peak was under the limiter's ceiling).
The converted middle is brought to the loudness of the old one (`loudness`), gets its side back (`image`), and the sum
is limited (`limiter`). All three run on a fixed grid of 100 ms: the samples do not depend on how the streams came.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.limiter import Limiter
from heartvoice.audio.loudness import LoudnessMatch
from heartvoice.audio.sample_queue import SampleQueue
from heartvoice.audio.stereo_image import DELAY, StereoImage, mid_channel
from heartvoice.contracts.constants import MAX_LEVEL, SAMPLE_RATE_HZ, STEM_RATE_HZ
from heartvoice.errors import EngineError

__all__ = ["MixPiece", "MixReport", "Mixer", "mid_channel"]

Samples = NDArray[np.float32]

MAX_SHORTFALL = 511
"""Samples that the converter may drop at the end: less than one frame of its mel grid."""
FADE = STEM_RATE_HZ // 100
"""Samples over which converted vocals that end early fade out."""
SILENCE_DBTP = -200.0
"""True peak that a report gives for silence: JSON has no infinity."""
_LENGTH_TOLERANCE = SAMPLE_RATE_HZ // 1000
"""Samples by which vocals and recording may differ in length: resampling rounds."""


@dataclass(frozen=True, eq=False)
class MixPiece:
    """Consecutive 48 kHz samples from `start` on, each float32 [2, n]; `audio` is `instrumental` + `vocals`."""

    audio: Samples
    instrumental: Samples
    vocals: Samples
    start: int


@dataclass(frozen=True)
class MixReport:
    """What the mixer did so far.

    `loudness_gain_db` is the lowest and the highest gain of the converted vocals (before `vocal_gain_db`),
    `limiter_reduction_db` the largest reduction (0: the limiter left every sample alone), `true_peak_dbtp` that of the
    output.
    """

    loudness_gain_db: tuple[float, float]
    limiter_reduction_db: float
    true_peak_dbtp: float


class Mixer:
    """Mixes one song out of three streams, each contiguous, in pieces of any size, as far ahead of the others as it is.

    Args:
        n_samples: length of the recording at 48 kHz, if it is known; as many samples as it has come out.
        vocal_gain_db: of the new vocals, after the loudness match.
    """

    def __init__(self, n_samples: int | None = None, *, vocal_gain_db: float = 0.0) -> None:
        import soxr

        self._n_samples, self._n_out = n_samples, 0
        self._gain = np.float32(10.0 ** (vocal_gain_db / 20.0))
        self._n = {"recording": 0, "vocals": 0, "converted": 0}
        self._recording, self._vocals, self._converted = SampleQueue((2,)), SampleQueue((2,)), SampleQueue()
        self._match, self._image, self._limiter = LoudnessMatch(), StereoImage(), Limiter(2)
        self._to_skip = DELAY
        self._resamplers = [soxr.ResampleStream(STEM_RATE_HZ, SAMPLE_RATE_HZ, 2, "float32", "VHQ") for _ in range(2)]
        self._old, self._new = SampleQueue((2,)), SampleQueue((2,))
        self._finished = False

    @property
    def report(self) -> MixReport:
        """What the mixer did so far."""
        gains = (self._match.lowest_db, self._match.highest_db)
        return MixReport(gains, self._limiter.reduction_db, max(self._limiter.true_peak_dbtp, SILENCE_DBTP))

    def push(
        self, recording: Samples | None = None, vocals: Samples | None = None, converted: Samples | None = None
    ) -> MixPiece | None:
        """Take what there is of each stream; returns the samples that became final, None if there are none.

        Args:
            recording: float32 [2, N] at 48 kHz.
            vocals: float32 [2, M] at 44.1 kHz, what the separator found.
            converted: float32 [K] at 44.1 kHz, `middle(vocals)` in another voice.

        Raises:
            EngineError: another shape or dtype, NaN, Inf or huge samples, or more of a stream than there can be.
        """
        assert not self._finished
        streams = (("recording", recording, self._recording), ("vocals", vocals, self._vocals))
        for name, samples, fifo in (*streams, ("converted", converted, self._converted)):
            if samples is not None:
                fifo.push(_checked(name, samples, 2 if fifo is not self._converted else 0))
                self._n[name] += samples.shape[-1]
        if self._n_samples is not None and self._n["recording"] > self._n_samples:
            raise EngineError(f"recording: expected {self._n_samples} samples at 48 kHz, got {self._n['recording']}")
        hop = self._match.hop
        # The last samples of the converted vocals wait: they fade out if nothing follows them.
        while len(self._vocals) >= hop and len(self._converted) >= hop + FADE:
            self._step(self._vocals.take(hop), self._converted.take(hop))
        limited = self._limiter.push(self._subtract_and_add())
        return self._piece(limited) if limited.shape[-1] else None

    def finish(self) -> MixPiece:
        """All three streams have ended; returns the rest.

        Raises:
            EngineError: the streams' lengths do not fit together.
        """
        assert not self._finished
        self._finished = True
        self._check_lengths()
        self._pad_converted(self._n["vocals"] - self._n["converted"])
        n_rest, hop = len(self._vocals), self._match.hop
        # Silence up to a whole block, and once more for what the image still holds back.
        n_pad = -(n_rest + DELAY) % hop + DELAY
        self._vocals.push(np.zeros((2, n_pad), np.float32))
        self._converted.push(np.zeros(n_pad, np.float32))
        while len(self._vocals):
            self._step(self._vocals.take(hop), self._converted.take(hop))
        for resampler, queue in zip(self._resamplers, (self._old, self._new), strict=True):
            queue.push(_resample(resampler, np.zeros((2, 0), np.float32), last=True))
            queue.push(np.zeros((2, max(0, len(self._recording) - len(queue))), np.float32))
        parts = [self._limiter.push(self._subtract_and_add()), self._limiter.finish()]
        return self._piece(np.concatenate(parts, axis=-1))

    # ----------------------------------------------------------------------------------------------------------- inside

    def _step(self, vocals: Samples, converted: Samples) -> None:
        """One block of 100 ms: old and new vocals, resampled, into their queues."""
        old_middle = mid_channel(vocals)
        new = self._image.push(vocals, self._match.apply(old_middle, converted))
        if self._to_skip:
            skip = min(self._to_skip, new.shape[1])
            self._to_skip -= skip
            new = new[:, skip:]
        if self._gain != 1:
            new = new * self._gain
        self._old.push(_resample(self._resamplers[0], vocals))
        self._new.push(_resample(self._resamplers[1], new))

    def _subtract_and_add(self) -> Samples:
        """Instrumental and new vocals, [2, 2, n], as far as all streams reach."""
        n = min(len(self._recording), len(self._old), len(self._new))
        instrumental = self._recording.take(n) - self._old.take(n)
        return np.stack([instrumental, self._new.take(n)])

    def _piece(self, limited: Samples) -> MixPiece:
        start, self._n_out = self._n_out, self._n_out + limited.shape[-1]
        return MixPiece(limited[0] + limited[1], limited[0], limited[1], start)

    def _check_lengths(self) -> None:
        n, n_vocals, n_converted = self._n["recording"], self._n["vocals"], self._n["converted"]
        if self._n_samples is not None and n != self._n_samples:
            raise EngineError(f"recording: expected {self._n_samples} samples at 48 kHz, got {n}")
        if abs(n_vocals * SAMPLE_RATE_HZ / STEM_RATE_HZ - n) > _LENGTH_TOLERANCE:
            expected = round(n * STEM_RATE_HZ / SAMPLE_RATE_HZ)
            raise EngineError(f"vocals: expected about {expected} samples at 44.1 kHz, got {n_vocals}")
        if not 0 <= n_vocals - n_converted <= MAX_SHORTFALL:
            low = max(0, n_vocals - MAX_SHORTFALL)
            raise EngineError(f"converted: expected {low} to {n_vocals} samples at 44.1 kHz, got {n_converted}")

    def _pad_converted(self, n_missing: int) -> None:
        """Fade what came and fill up with silence."""
        if not n_missing:
            return
        rest = self._converted.take(len(self._converted))
        fade = min(FADE, len(rest))
        rest[len(rest) - fade :] *= (0.5 + 0.5 * np.cos(np.pi * np.arange(1, fade + 1) / (fade + 1))).astype(np.float32)
        self._converted.push(np.concatenate([rest, np.zeros(n_missing, np.float32)]))


def _checked(name: str, samples: Samples, n_channels: int) -> Samples:
    """The stream's samples, copied: the caller may use its buffer again."""
    shape = f"[{n_channels}, sample]" if n_channels else "[sample]"
    if samples.dtype != np.float32 or samples.shape[:-1] != ((n_channels,) if n_channels else ()) or not samples.ndim:
        raise EngineError(f"{name}: expected float32 {shape}, got {samples.dtype} {list(samples.shape)}")
    highest = float(np.abs(samples).max(initial=0.0))
    if not highest <= MAX_LEVEL:  # NaN, too
        raise EngineError(f"{name}: expected finite samples within +-{MAX_LEVEL:g}, got {highest}")
    return samples.copy()


def _resample(resampler: object, samples: Samples, *, last: bool = False) -> Samples:
    """Stream float32 [2, N] through soxr."""
    out: Samples = resampler.resample_chunk(np.ascontiguousarray(samples.T), last=last).T  # type: ignore[attr-defined]
    return np.ascontiguousarray(out)
