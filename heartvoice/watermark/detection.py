"""Finds a mark without the original: where its pattern begins, at which speed, and its payload.

Every offset is tried by one circular correlation over the sum of all periods. The best offsets of the part of the
pattern that is the same for all files are decoded, and scored by the correlation with the whole pattern of the decoded
payload. A score is in standard deviations of the correlations at all offsets, for the key and for decoy keys, and it
must exceed the best score of a decoy: noise with heavy tails raises both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.contracts.constants import SAMPLE_RATE_HZ
from heartvoice.watermark.error_correction import decode, encode
from heartvoice.watermark.features import band_levels, changes, fold, power_spectra
from heartvoice.watermark.layout import (
    CHIP_FRAMES,
    CODED_BITS,
    HOP,
    N_CHIPS,
    N_SYNC_CHIPS,
    PERIOD_FRAMES,
    SYNC,
    Layout,
    layout_of,
)

Values = NDArray[np.float64]

THRESHOLD = 11.0
"""Lowest score of a mark. Unmarked audio reaches 6 to 8; `python -m benchmarks.watermark` measures it."""
ABOVE_DECOYS = 1.5
"""How far a mark's score lies above the best one of the decoys."""
N_DECOYS = 8
N_CANDIDATES = 8
"""Offsets that are decoded."""
N_SPEEDS = 3
"""Speeds that are looked at more closely."""
SPEEDS = tuple(float(speed) for speed in np.round(np.arange(0.96, 1.0401, 0.0025), 4))
WINDOW_FRAMES = 40 * SAMPLE_RATE_HZ // HOP
"""Frames over which speeds are searched: over more of them a wrong speed drifts too far."""
PART_FRAMES = 20 * SAMPLE_RATE_HZ // HOP
"""Frames of a part that is looked at by itself: a file may hold a marked part."""


@dataclass(frozen=True)
class Detection:
    """What was found.

    Attributes:
        found: whether the audio carries a mark of the key.
        score: in standard deviations.
        threshold: what the score had to reach.
        payload: the `PAYLOAD_BITS` bits, or None if nothing was found.
        speed: how much faster than the original the audio is played.
        start_s: where the mark's first sample lies in the audio, up to whole periods of 32.8 s.
    """

    found: bool
    score: float
    threshold: float
    payload: int | None = None
    speed: float = 1.0
    start_s: float = 0.0

    def as_fields(self) -> dict[str, Any]:
        """Return the fields for JSON; the payload as eight hexadecimal digits."""
        payload = None if self.payload is None else f"{self.payload:08x}"
        return {
            "found": self.found, "payload": payload, "score": round(self.score, 2),
            "threshold": round(self.threshold, 2), "speed": self.speed, "start_s": round(self.start_s, 3),
        }  # fmt: skip


NOTHING = Detection(False, 0.0, THRESHOLD)


def detect(audio: NDArray[np.float32], sample_rate_hz: int, key: bytes, *, speeds: bool = True) -> Detection:
    """Look for the mark of a key.

    Args:
        audio: float32 [C, N] or [N], at any rate.
        sample_rate_hz: of the audio.
        key: the secret with which it may have been marked.
        speeds: also look for audio that is played up to 4 % slower or faster.
    """
    spectra = power_spectra(audio, sample_rate_hz)
    change = changes(band_levels(spectra, 1.0))
    best = _best(_search(part, key) for part in _parts(change))
    if best.found or not speeds:
        return best
    middle = spectra[max(0, (len(spectra) - WINDOW_FRAMES) // 2) :][:WINDOW_FRAMES]
    likely = sorted(SPEEDS, key=lambda speed: -_likelihood(middle, key, speed))[:N_SPEEDS]
    steps = [speed + step for speed in likely for step in (-0.001, -0.0005, 0.0, 0.0005, 0.001)]
    finer = max(steps, key=lambda speed: _likelihood(middle, key, speed))
    whole = [_at_speed(spectra, key, finer + step) for step in (-0.0002, 0.0, 0.0002)]
    return _best([best, _at_speed(middle, key, finer), *whole])


def _likelihood(spectra: NDArray[np.float32], key: bytes, speed: float) -> float:
    """How far the best offset at a speed stands out, by the part of the pattern that all files share."""
    curve = _correlations(np.fft.rfft(fold(changes(band_levels(spectra, speed))), axis=0), layout_of(key))
    return float(curve.max() / (np.median(np.abs(curve)) + 1e-9))


def _best(detections: Iterable[Detection]) -> Detection:
    return max(detections, key=lambda each: (each.found, each.score), default=NOTHING)


def _parts(change: Values) -> Iterator[Values]:
    """The whole, and parts of a longer file; what precedes a part is silenced, not moved."""
    yield change
    if len(change) > PART_FRAMES:
        for at in range(0, len(change) - PART_FRAMES // 2, PART_FRAMES // 2):
            part = np.zeros_like(change[: at + PART_FRAMES])
            part[at:] = change[at : at + PART_FRAMES]
            yield part


def _at_speed(spectra: NDArray[np.float32], key: bytes, speed: float) -> Detection:
    found = _search(changes(band_levels(spectra, speed)), key)
    return replace(found, speed=round(speed, 4), start_s=found.start_s / speed)


def _search(change: Values, key: bytes) -> Detection:
    """Look for the key's pattern, and for those of the decoys."""
    if len(change) < CHIP_FRAMES:
        return NOTHING
    folded = fold(change)
    spectrum = np.fft.rfft(folded, axis=0)
    layouts = [layout_of(key), *_decoys(key)]
    curves = [_correlations(spectrum, layout) for layout in layouts]
    deviation = 1.4826 * float(np.median(np.abs(curves)))
    if deviation <= 0.0:
        return NOTHING
    unit = deviation * float(np.sqrt(N_CHIPS / N_SYNC_CHIPS))
    score, payload, offset = _decode_best(folded, layouts[0], curves[0])
    threshold = THRESHOLD
    if score / unit >= threshold:
        decoys = [_decode_best(folded, *each)[0] for each in zip(layouts[1:], curves[1:], strict=True)]
        threshold = max(threshold, max(decoys) / unit + ABOVE_DECOYS)
    found = score / unit >= threshold
    start_s = (offset + 1) % PERIOD_FRAMES * HOP / SAMPLE_RATE_HZ  # the mark's first frame begins a hop before it
    return Detection(found, score / unit, threshold, payload if found else None, start_s=start_s)


def _decoys(key: bytes) -> list[Layout]:
    return [layout_of(hashlib.sha256(b"heartvoice decoy %d\0" % index + key).digest()) for index in range(N_DECOYS)]


def _correlations(spectrum: NDArray[np.complex128], layout: Layout) -> Values:
    """Correlation of the folded changes with the part of the pattern that all files share, [PERIOD_FRAMES]."""
    pattern = np.zeros((PERIOD_FRAMES, spectrum.shape[1]))
    pattern[::CHIP_FRAMES] = np.where(layout.bit == SYNC, layout.sign, 0.0)
    curve: Values = np.fft.irfft((spectrum * np.conj(np.fft.rfft(pattern, axis=0))).sum(axis=1), PERIOD_FRAMES)
    return curve


def _decode_best(folded: Values, layout: Layout, curve: Values) -> tuple[float, int, int]:
    """Score, payload and offset of the best of the most likely offsets."""
    offsets = np.argsort(-curve)[:N_CANDIDATES]
    chips = np.stack([np.roll(folded, -offset, axis=0)[::CHIP_FRAMES] for offset in offsets]) * layout.sign
    carries = layout.bit != SYNC
    soft: Values = np.stack([np.bincount(layout.bit[carries], each[carries], CODED_BITS) for each in chips])
    payloads = decode(soft)
    scores = [
        float(curve[offset] + row @ encode(payload))
        for offset, row, payload in zip(offsets, soft, payloads, strict=True)
    ]
    best = int(np.argmax(scores))
    return scores[best], payloads[best], int(offsets[best])
