"""Finds a mark without the original: where its pattern begins, at which speed, and its payload.

Every offset is tried by one circular correlation over the sum of all periods. The best offsets of the part of the
pattern that is the same for all files are decoded, and scored by the correlation with the whole pattern of the decoded
payload. A score is in standard deviations of the correlations at all offsets, for the key and for decoy keys, and it
must exceed the best score of a decoy: noise with heavy tails raises both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.contracts.constants import SAMPLE_RATE_HZ
from heartvoice.watermark.error_correction import decode, encode
from heartvoice.watermark.features import band_levels, changes, fold, power_spectra
from heartvoice.watermark.keys import SONG, pattern_keys
from heartvoice.watermark.layout import (
    CHIP_FRAMES,
    CODED_BITS,
    HOP,
    N_BANDS,
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
        kind: `keys.SONG` or `keys.COVER`: of the pattern that was found, or that came closest.
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
    kind: str = SONG

    def as_fields(self) -> dict[str, Any]:
        """Return the fields for JSON; the payload as eight hexadecimal digits."""
        payload = None if self.payload is None else f"{self.payload:08x}"
        return {
            "found": self.found, "kind": self.kind, "payload": payload, "score": round(self.score, 2),
            "threshold": round(self.threshold, 2), "speed": self.speed, "start_s": round(self.start_s, 3),
        }  # fmt: skip


NOTHING = Detection(False, 0.0, THRESHOLD)


class Evidence:
    """What a piece of audio tells about marks: made once, asked for any number of keys."""

    def __init__(self, audio: NDArray[np.float32], sample_rate_hz: int) -> None:
        """Measure the audio.

        Args:
            audio: float32 [C, N] or [N], at any rate.
            sample_rate_hz: of the audio.
        """
        self._spectra = power_spectra(audio, sample_rate_hz)
        self._middle = self._spectra[max(0, (len(self._spectra) - WINDOW_FRAMES) // 2) :][:WINDOW_FRAMES]
        self._parts = list(_parts(changes(band_levels(self._spectra, 1.0))))
        self._at_speeds: dict[float, _Folded] = {}

    def detect(self, key: bytes, *, speeds: bool = True) -> Detection:
        """Look for the marks of a service's key, and return the clearest; see `detect_each`."""
        return self.detect_each(key, speeds=speeds)[0]

    def detect_each(self, key: bytes, *, speeds: bool = True) -> list[Detection]:
        """Look for the marks of each kind, the clearest first: a cover of a marked song has two.

        Args:
            key: of the service.
            speeds: also look for audio that is played up to 4 % slower or faster.
        """
        keys = pattern_keys(key)
        best = {kind: _best(_search(self._parts, pattern)) for kind, pattern in keys.items()}
        if speeds and self._parts and not any(each.found for each in best.values()):  # all marks have the file's speed
            best = {kind: _best([best[kind], *self._at_other_speeds(pattern)]) for kind, pattern in keys.items()}
        return sorted((replace(each, kind=kind) for kind, each in best.items()), key=_clearness, reverse=True)

    def _at_other_speeds(self, key: bytes) -> list[Detection]:
        likely = sorted(SPEEDS, key=lambda speed: -self._likelihood(key, speed))[:N_SPEEDS]
        steps = [speed + step for speed in likely for step in (-0.001, -0.0005, 0.0, 0.0005, 0.001)]
        finer = max(steps, key=lambda speed: self._likelihood(key, speed))
        whole = [_at_speed(self._spectra, key, finer + step) for step in (-0.0002, 0.0, 0.0002)]
        return [_at_speed(self._middle, key, finer), *whole]

    def _likelihood(self, key: bytes, speed: float) -> float:
        """How far the best offset at a speed stands out, by the part of the pattern that all files share."""
        folded = self._at_speeds.get(speed)
        if folded is None:
            folded = _Folded(fold(changes(band_levels(self._middle, speed))))
            if speed in SPEEDS:  # the finer ones depend on the key
                self._at_speeds[speed] = folded
        curve = _correlations(folded, _pattern_of(key))
        return float(curve.max() / (np.median(np.abs(curve)) + 1e-9))


def detect(audio: NDArray[np.float32], sample_rate_hz: int, key: bytes, *, speeds: bool = True) -> Detection:
    """Look for the mark of a service's key in audio, float32 [C, N] or [N]; see `Evidence`."""
    return Evidence(audio, sample_rate_hz).detect(key, speeds=speeds)


class _Folded:
    """The sum of all periods, `levels` [PERIOD_FRAMES, N_BANDS], and its spectrum over time."""

    def __init__(self, levels: Values) -> None:
        self.levels = levels
        self.spectrum = np.fft.rfft(levels, axis=0)


@dataclass(frozen=True, eq=False)
class _Pattern:
    """A key's layout, and the conjugate spectrum over time of its part that all files share."""

    layout: Layout
    spectrum: NDArray[np.complex128]


@lru_cache(maxsize=3 * (1 + N_DECOYS))
def _pattern_of(key: bytes) -> _Pattern:
    layout = layout_of(key)
    shared = np.zeros((PERIOD_FRAMES, N_BANDS))
    shared[::CHIP_FRAMES] = np.where(layout.bit == SYNC, layout.sign, 0.0)
    return _Pattern(layout, np.conj(np.fft.rfft(shared, axis=0)))


def _decoys(key: bytes) -> list[_Pattern]:
    return [_pattern_of(hashlib.sha256(b"heartvoice decoy %d\0" % index + key).digest()) for index in range(N_DECOYS)]


def _best(detections: Iterable[Detection]) -> Detection:
    return max(detections, key=_clearness, default=NOTHING)


def _clearness(detection: Detection) -> tuple[bool, float]:
    return detection.found, detection.score


def _parts(change: Values) -> Iterator[_Folded]:
    """The whole, and parts of a longer file, each on the whole's grid; nothing if it is too short for a chip."""
    if len(change) < CHIP_FRAMES:
        return
    yield _Folded(fold(change))
    if len(change) > PART_FRAMES:
        for at in range(0, len(change) - PART_FRAMES // 2, PART_FRAMES // 2):
            yield _Folded(np.roll(fold(change[at : at + PART_FRAMES]), at, axis=0))


def _at_speed(spectra: NDArray[np.float32], key: bytes, speed: float) -> Detection:
    change = changes(band_levels(spectra, speed))
    if len(change) < CHIP_FRAMES:
        return NOTHING
    found = _search([_Folded(fold(change))], key)[0]
    return replace(found, speed=round(speed, 4), start_s=found.start_s / speed)


def _search(parts: Sequence[_Folded], key: bytes) -> list[Detection]:
    """Look for the key's pattern in each part, and for those of the decoys."""
    pattern, decoys = _pattern_of(key), _decoys(key)
    curves = [[_correlations(part, each) for each in (pattern, *decoys)] for part in parts]
    decoded = _decode([(part, pattern, curve[0]) for part, curve in zip(parts, curves, strict=True)])
    return [_judge(part, each, curve, decoys) for part, each, curve in zip(parts, decoded, curves, strict=True)]


def _judge(part: _Folded, decoded: _Decoded, curves: Sequence[Values], decoys: Sequence[_Pattern]) -> Detection:
    """Compare what was decoded with the correlations at all offsets, and with what decoys give."""
    deviation = 1.4826 * float(np.median(np.abs(curves)))
    if deviation <= 0.0:
        return NOTHING
    unit = deviation * float(np.sqrt(N_CHIPS / N_SYNC_CHIPS))
    score, threshold = decoded.correlation / unit, THRESHOLD
    if score >= threshold:
        others = _decode([(part, decoy, curve) for decoy, curve in zip(decoys, curves[1:], strict=True)])
        threshold = max(threshold, max(each.correlation for each in others) / unit + ABOVE_DECOYS)
    found = score >= threshold
    start_s = (decoded.offset + 1) % PERIOD_FRAMES * HOP / SAMPLE_RATE_HZ  # the first frame begins a hop before it
    return Detection(found, score, threshold, decoded.payload if found else None, start_s=start_s)


def _correlations(part: _Folded, pattern: _Pattern) -> Values:
    """Correlation at each offset with the part of the pattern that all files share, [PERIOD_FRAMES]."""
    curve: Values = np.fft.irfft((part.spectrum * pattern.spectrum).sum(axis=1), PERIOD_FRAMES)
    return curve


@dataclass(frozen=True)
class _Decoded:
    """The best of the most likely offsets: correlation with the whole pattern of the payload that is read there."""

    correlation: float
    payload: int
    offset: int


def _decode(cases: Sequence[tuple[_Folded, _Pattern, Values]]) -> list[_Decoded]:
    """Decode each part by a pattern and its correlations; all at once, which takes little longer than one."""
    offsets = [np.argsort(-curve)[:N_CANDIDATES] for _, _, curve in cases]
    soft = [
        _soft_bits(part, pattern.layout, int(offset))
        for (part, pattern, _), chosen in zip(cases, offsets, strict=True)
        for offset in chosen
    ]
    payloads = decode(np.stack(soft)) if soft else []
    best = []
    for index, ((_, _, curve), chosen) in enumerate(zip(cases, offsets, strict=True)):
        rows = range(index * N_CANDIDATES, (index + 1) * N_CANDIDATES)
        read = [
            _Decoded(float(curve[offset] + soft[row] @ encode(payloads[row])), payloads[row], int(offset))
            for row, offset in zip(rows, chosen, strict=True)
        ]
        best.append(max(read, key=lambda each: each.correlation))
    return best


def _soft_bits(part: _Folded, layout: Layout, offset: int) -> Values:
    """Sum of each coded bit's chips, [CODED_BITS], if the pattern begins at `offset`."""
    chips = np.roll(part.levels, -offset, axis=0)[::CHIP_FRAMES] * layout.sign
    carries = layout.bit != SYNC
    return np.asarray(np.bincount(layout.bit[carries], chips[carries], CODED_BITS), np.float64)
