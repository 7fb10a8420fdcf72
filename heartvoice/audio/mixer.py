"""Streaming mix: a recording's instrumental with converted vocals in place of the old ones.

    instrumental = recording - resampled old vocals
    output       = limiter(instrumental + resampled new vocals)

A converter that returns its input therefore reproduces the recording (if its true peak is below the limiter's ceiling).
The converted mid channel is matched to the old one's loudness (`loudness_match`), its side channel is restored
(`stereo_image`), and the sum is limited (`limiter`). Vocals whose channels cancel are matched with the right one turned
(`polarity`). All of these use a fixed grid of 100 ms, so the output does not depend on the lengths of the chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.limiter import Limiter
from heartvoice.audio.loudness_match import MAX_GAIN_DB, LoudnessMatch
from heartvoice.audio.polarity import PolarityFollower, turned
from heartvoice.audio.sample_queue import SampleQueue
from heartvoice.audio.stereo_image import DELAY, StereoImage, mid_channel
from heartvoice.contracts.constants import MAX_LEVEL, SAMPLE_RATE_HZ, STEM_RATE_HZ
from heartvoice.errors import EngineError

__all__ = ["MixPiece", "MixReport", "Mixer", "mid_channel"]

Samples = NDArray[np.float32]

MAX_SHORTFALL = 511
"""Samples that the converter may drop at the end: less than one frame of its mel grid."""
FADE = STEM_RATE_HZ // 100
"""Length in samples of the fade-out of converted vocals that end early."""
SILENCE_DBTP = -200.0
"""True peak reported for silence; JSON has no infinity."""
_TOLERATED_DB = 1.0
"""Difference in loudness that needs no warning."""
_LENGTH_TOLERANCE = SAMPLE_RATE_HZ // 1000
"""Allowed difference in samples between vocals and recording, because resampling rounds."""


@dataclass(frozen=True, eq=False)
class MixPiece:
    """Consecutive 48 kHz samples from `start` on, float32 [2, n]; `audio` = `instrumental` + `vocals`."""

    audio: Samples
    instrumental: Samples
    vocals: Samples
    start: int


@dataclass(frozen=True)
class MixReport:
    """Measurements of the mix so far.

    `loudness_gain_db` is the lowest and the highest gain of the converted vocals where they sing (before
    `vocal_gain_db`), `limiter_reduction_db` the largest reduction (0: the limiter changed no sample), `true_peak_dbtp`
    the output's true peak.
    """

    loudness_gain_db: tuple[float, float]
    limiter_reduction_db: float
    true_peak_dbtp: float
    warnings: tuple[str, ...] = ()


class Mixer:
    """Mixes one song out of three streams; each is pushed contiguously, in chunks of any length.

    The streams need not advance together. The output is as long as the recording.

    Args:
        vocal_gain_db: gain of the new vocals, after the loudness match.
        live: mix what comes at once. Otherwise nothing is mixed before all old vocals were pushed.
        inverted: the channels of the old vocals cancel at their beginning (see `PolarityFollower`).
    """

    def __init__(self, *, vocal_gain_db: float = 0.0, live: bool = False, inverted: bool = False) -> None:
        import soxr

        self._n_out = 0
        self._gain = np.float32(10.0 ** (vocal_gain_db / 20.0))
        self._n = {"recording": 0, "vocals": 0, "converted": 0}
        self._recording, self._vocals, self._converted = SampleQueue((2,)), SampleQueue((2,)), SampleQueue()
        self._old_mid, self._measured = SampleQueue(), SampleQueue()  # not measured yet; converted, without a gain yet
        self._match, self._image, self._limiter = LoudnessMatch(live=live), StereoImage(), Limiter(2)
        self._to_skip = DELAY
        self._heard, self._placed = PolarityFollower(inverted=inverted), PolarityFollower(inverted=inverted)
        self._signs: Samples = np.full(DELAY, -1.0 if inverted else 1.0, np.float32)  # of the right channel, delayed
        self._resamplers = [soxr.ResampleStream(STEM_RATE_HZ, SAMPLE_RATE_HZ, 2, "float32", "VHQ") for _ in range(2)]
        self._old, self._new = SampleQueue((2,)), SampleQueue((2,))
        self._vocals_ended = self._finished = False

    @property
    def report(self) -> MixReport:
        """Measurements of the mix so far."""
        gains = (round(self._match.lowest_db, 4), round(self._match.highest_db, 4))
        peak = max(self._limiter.true_peak_dbtp, SILENCE_DBTP)
        return MixReport(gains, self._limiter.reduction_db, peak, tuple(self._warnings()))

    def push(
        self, recording: Samples | None = None, vocals: Samples | None = None, converted: Samples | None = None
    ) -> MixPiece | None:
        """Push the available chunk of each stream; return the samples that became final, or None.

        The arrays are kept until they are mixed: do not change them afterwards.

        Args:
            recording: float32 [2, N] at 48 kHz.
            vocals: float32 [2, M] at 44.1 kHz, the separator's vocals.
            converted: float32 [K] at 44.1 kHz, the mid channel of the aligned vocals in another voice.

        Raises:
            EngineError: wrong shape or dtype; NaN, Inf or huge samples; a stream longer than the recording.
            RuntimeError: `finish` was called before, or vocals follow their end.
        """
        self._check_open()
        if self._vocals_ended and vocals is not None:
            raise RuntimeError("mixer: expected no vocals after their end")
        streams = (("recording", recording, self._recording), ("vocals", vocals, self._vocals))
        for name, samples, queue in (*streams, ("converted", converted, self._converted)):
            if samples is not None:
                queue.push(_checked(name, samples, 2 if queue is not self._converted else 0))
                self._n[name] += samples.shape[-1]
        if vocals is not None:
            self._old_mid.push(mid_channel(turned(vocals, self._heard.push(vocals))))
        self._measure(kept=FADE)  # they stay queued, because they fade out if the stream ends there
        self._step_all()
        limited = self._limiter.push(self._subtract_and_add())
        return self._piece(limited) if limited.shape[-1] else None

    def end_vocals(self) -> None:
        """Take note that no vocals follow. `finish` does so, too, but then an exact mix comes at once."""
        if not self._vocals_ended:
            self._vocals_ended = True
            self._vocals.push(np.zeros((2, self._n_pad), np.float32))
            self._old_mid.push(np.zeros(self._n_pad, np.float32))
            self._measure_old()
            self._match.end_old()

    def finish(self) -> MixPiece:
        """End all three streams and return the remaining samples.

        Raises:
            EngineError: the lengths of the streams do not match.
            RuntimeError: `finish` was called before.
        """
        self._check_open()
        self._finished = True
        self._check_lengths()
        self._pad_converted(self._n["vocals"] - self._n["converted"])
        self.end_vocals()
        self._converted.push(np.zeros(self._n_pad, np.float32))
        self._measure()
        self._match.end()
        self._step_all()
        for resampler, queue in zip(self._resamplers, (self._old, self._new), strict=True):
            queue.push(_resample(resampler, np.zeros((2, 0), np.float32), last=True))
            queue.push(np.zeros((2, max(0, len(self._recording) - len(queue))), np.float32))
        parts = [self._limiter.push(self._subtract_and_add()), self._limiter.finish()]
        return self._piece(np.concatenate(parts, axis=-1))

    # ---------------------------------------------------------------------------------------------------------- private

    def _check_open(self) -> None:
        if self._finished:
            raise RuntimeError("mixer: expected no call after finish()")

    @property
    def _n_pad(self) -> int:
        """Silence after the vocals: up to a whole block, and one more delay to flush the stereo image."""
        return -(self._n["vocals"] + DELAY) % self._match.hop + DELAY

    def _measure_old(self) -> None:
        """Measure all whole blocks of 100 ms of old vocals."""
        hop = self._match.hop
        while len(self._old_mid) >= hop:
            self._match.hear_old(self._old_mid.take(hop))

    def _warnings(self) -> Iterator[str]:
        if self._match.is_missing:
            yield "loudness: the converter returned silence for all of the singing"
        if self._match.missed_db > _TOLERATED_DB:
            yield (
                f"loudness: the new vocals are {self._match.missed_db:.0f} dB off the old ones at some place, since "
                f"the converter was further off than the {MAX_GAIN_DB:g} dB that are made up for"
            )

    def _measure(self, *, kept: int = 0) -> None:
        """Measure all whole blocks of 100 ms of old and new vocals; `kept` new samples wait."""
        self._measure_old()
        hop = self._match.hop
        while len(self._converted) >= hop + kept:
            block = self._converted.take(hop)
            self._match.hear_new(block)
            self._measured.push(block)

    def _step_all(self) -> None:
        """Mix all blocks whose gain is known."""
        for _ in range(self._match.n_ready):
            hop = self._match.hop
            self._step(self._vocals.take(hop), self._match.apply(self._measured.take(hop)))

    def _step(self, vocals: Samples, matched: Samples) -> None:
        """Resample one block of 100 ms of old and new vocals into their queues."""
        signs = self._placed.push(vocals)
        new = self._turn_back(self._image.push(turned(vocals, signs), matched), signs)
        if self._to_skip:
            skip = min(self._to_skip, new.shape[1])
            self._to_skip -= skip
            new = new[:, skip:]
        if self._gain != 1:
            new = new * self._gain
        self._old.push(_resample(self._resamplers[0], vocals))
        self._new.push(_resample(self._resamplers[1], new))

    def _turn_back(self, new: Samples, signs: Samples | None) -> Samples:
        """Give the right channel, `DELAY` samples late, the sign of the old one."""
        coming = np.ones(new.shape[1], np.float32) if signs is None else signs
        delayed = np.concatenate([self._signs, coming])
        self._signs = delayed[new.shape[1] :]
        return new if (delayed == 1).all() else turned(new, delayed[: new.shape[1]])

    def _subtract_and_add(self) -> Samples:
        """Instrumental and new vocals, [2, 2, n], up to the end of the shortest stream."""
        n = min(len(self._recording), len(self._old), len(self._new))
        instrumental = self._recording.take(n) - self._old.take(n)
        return np.stack([instrumental, self._new.take(n)])

    def _piece(self, limited: Samples) -> MixPiece:
        start, self._n_out = self._n_out, self._n_out + limited.shape[-1]
        return MixPiece(limited[0] + limited[1], limited[0], limited[1], start)

    def _check_lengths(self) -> None:
        n, n_vocals, n_converted = self._n["recording"], self._n["vocals"], self._n["converted"]
        if abs(n_vocals * SAMPLE_RATE_HZ / STEM_RATE_HZ - n) > _LENGTH_TOLERANCE:
            expected = round(n * STEM_RATE_HZ / SAMPLE_RATE_HZ)
            raise EngineError(f"vocals: expected about {expected} samples at 44.1 kHz, got {n_vocals}")
        if not 0 <= n_vocals - n_converted <= MAX_SHORTFALL:
            low = max(0, n_vocals - MAX_SHORTFALL)
            raise EngineError(f"converted: expected {low} to {n_vocals} samples at 44.1 kHz, got {n_converted}")

    def _pad_converted(self, n_missing: int) -> None:
        """Fade out the queued converted vocals and pad them with silence."""
        if not n_missing:
            return
        rest = self._converted.take(len(self._converted))
        fade = min(FADE, len(rest))
        rest[len(rest) - fade :] *= (0.5 + 0.5 * np.cos(np.pi * np.arange(1, fade + 1) / (fade + 1))).astype(np.float32)
        self._converted.push(np.concatenate([rest, np.zeros(n_missing, np.float32)]))


def _checked(name: str, samples: Samples, n_channels: int) -> Samples:
    """Check a chunk."""
    shape = f"[{n_channels}, sample]" if n_channels else "[sample]"
    if samples.dtype != np.float32 or samples.shape[:-1] != ((n_channels,) if n_channels else ()) or not samples.ndim:
        raise EngineError(f"{name}: expected float32 {shape}, got {samples.dtype} {list(samples.shape)}")
    highest = float(np.abs(samples).max(initial=0.0))
    if not highest <= MAX_LEVEL:  # NaN, too
        raise EngineError(f"{name}: expected finite samples within +-{MAX_LEVEL:g}, got {highest}")
    return samples


def _resample(resampler: object, samples: Samples, *, last: bool = False) -> Samples:
    """Resample the next chunk of a float32 [2, N] stream with soxr."""
    out: Samples = resampler.resample_chunk(np.ascontiguousarray(samples.T), last=last).T  # type: ignore[attr-defined]
    return np.ascontiguousarray(out)
