"""Recordings and voice references from requests, checked before any network runs."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.audio.decode import check_rate, decode
from heartvoice.audio.dsp import frames, resample
from heartvoice.contracts.constants import (
    BIDI_CONTROLS,
    MAX_CHANNELS,
    MAX_CONSENT_CHARS,
    MAX_LEVEL,
    MAX_RECORDING_S,
    MAX_VOICE_S,
    MIN_RECORDING_S,
    MIN_VOICE_S,
    STEM_RATE_HZ,
)
from heartvoice.contracts.validation import read_text
from heartvoice.errors import InvalidRequestError

Samples = NDArray[np.float32]

SILENCE_DBFS = -60.0
"""Frames of a voice below this level count as silence."""
ACTIVE_RANGE_DB = 30.0
"""Frames further below the loudest frame than this count as silence: they contain the room."""
MIN_ACTIVE_S = 1.0
_FRAME_S = 0.02
_SHORT_S = 10.0
_FEW_ACTIVE = 0.4
_FULL_SCALE = 0.999
_MANY_CLIPPED = 1e-4
_BAND_HZ = 4000.0
_BAND_RATE_HZ = 16_000
_EMPTY_BAND = 1e-5
"""Share of the energy above 4 kHz below which a voice is telephone band; speech has 1e-2 to 1e-4."""


@dataclass(frozen=True, eq=False)
class Recording:
    """Samples as sent, float32 [C, N], one or two channels, finite; `warnings` names tolerable faults."""

    audio: Samples
    sample_rate_hz: int
    warnings: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return self.audio.shape[1] / self.sample_rate_hz

    def stereo(self) -> Samples:
        """Return float32 [2, N]; a mono recording is duplicated."""
        return self.audio if len(self.audio) == MAX_CHANNELS else np.repeat(self.audio, MAX_CHANNELS, axis=0)

    def mono(self) -> Samples:
        """Return float32 [N], the mean of the channels."""
        mean: Samples = self.audio[0] if len(self.audio) == 1 else self.audio.mean(axis=0, dtype=np.float32)
        return mean


@dataclass(frozen=True, eq=False)
class Voice:
    """A voice reference.

    `audio44` is float32 [N], mono at 44.1 kHz; `sha256` of its bytes identifies the voice in caches and reports.
    """

    audio44: Samples
    audio: Recording
    sha256: str
    warnings: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """Duration in seconds."""
        return self.audio.duration_s


def read_recording(
    inputs: Mapping[str, Array],
    *,
    file: str = "file",
    audio: str = "audio",
    rate: str = "sample_rate",
    min_s: float = MIN_RECORDING_S,
    max_s: float = MAX_RECORDING_S,
) -> Recording:
    """Read a recording, sent as an encoded file or as samples with their rate.

    Args:
        inputs: tensors of the request by name.
        file: name of the BYTES [1] input.
        audio: name of the FP32 [C, N] input, the alternative to `file`.
        rate: name of the INT64 [1] input with the rate of `audio`.
        min_s: shortest allowed duration.
        max_s: longest allowed duration.

    Raises:
        InvalidRequestError: the message gives field, limit and value.
    """
    if (file in inputs) == (audio in inputs):
        got = "both" if file in inputs else "neither"
        raise InvalidRequestError(f"{file}: expected either {file} or {audio}, got {got}")
    if file in inputs:
        if rate in inputs:
            raise InvalidRequestError(f"{rate}: expected only with {audio}, got it with {file}, which has its own")
        decoded = decode(_bytes(inputs[file], file), field=file, max_s=max_s)
        field, recording = file, Recording(decoded.audio, decoded.sample_rate_hz, decoded.warnings)
    else:
        if rate not in inputs:
            raise InvalidRequestError(f"{rate}: missing, expected the rate of {audio} in Hz")
        rate_hz = int(inputs[rate][0])
        check_rate(rate_hz, rate)
        field, recording = audio, Recording(_samples(inputs[audio], audio), rate_hz)
    if not min_s <= recording.duration_s <= max_s:
        raise InvalidRequestError(f"{field}: expected {min_s:g} to {max_s:g} s, got {recording.duration_s:.6g} s")
    peak = float(max(recording.audio.max(), -recording.audio.min()))
    if peak > MAX_LEVEL:
        raise InvalidRequestError(f"{field}: expected samples of about -1 to 1, got {peak:.4g}")
    return recording


def _bytes(value: Array, field: str) -> bytes:
    raw = value.reshape(-1)[0] if value.size == 1 else None
    if not isinstance(raw, bytes):
        raise InvalidRequestError(f"{field}: expected BYTES [1], got {value.dtype} {list(value.shape)}")
    return raw


def _samples(value: Array, field: str) -> Samples:
    if value.dtype != np.float32 or value.ndim != 2:
        raise InvalidRequestError(f"{field}: expected FP32 [channel, sample], got {value.dtype} {list(value.shape)}")
    if not 1 <= len(value) <= MAX_CHANNELS:
        raise InvalidRequestError(f"{field}: expected 1 or 2 channels, got {len(value)}")
    if not value.shape[1]:
        raise InvalidRequestError(f"{field}: expected sound, got no samples")
    if not np.isfinite(value).all():
        raise InvalidRequestError(f"{field}: expected finite samples, got NaN or Inf")
    return np.ascontiguousarray(value)


# --------------------------------------------------------------------------------------------------------------- voices


def read_voice(inputs: Mapping[str, Array]) -> Voice:
    """Read a voice reference from the inputs `voice`, or `voice_audio` and `voice_sample_rate`.

    Raises:
        InvalidRequestError: not audio, not 3 to 60 s, or silent; the message gives field, limit and value.
    """
    recording = read_recording(
        inputs, file="voice", audio="voice_audio", rate="voice_sample_rate", min_s=MIN_VOICE_S, max_s=MAX_VOICE_S
    )
    audio44 = resample(recording.mono(), recording.sample_rate_hz, STEM_RATE_HZ)
    active = _active_frames(audio44, "voice" if "voice" in inputs else "voice_audio")
    warnings = (*recording.warnings, *_voice_warnings(recording, audio44, active))
    digest = hashlib.sha256(np.ascontiguousarray(audio44, "<f4").tobytes()).hexdigest()
    return Voice(audio44, recording, digest, warnings)


def _voice_frames(audio44: Samples) -> Samples:
    length = round(_FRAME_S * STEM_RATE_HZ)
    return frames(audio44, length, length).astype(np.float32, copy=False)


def _active_frames(audio44: Samples, field: str) -> NDArray[np.bool_]:
    """Mark frames of 20 ms with voice; refuse a reference with less than `MIN_ACTIVE_S`."""
    pieces = _voice_frames(audio44 - audio44.mean(dtype=np.float64).astype(np.float32))
    power = np.mean(np.square(pieces, dtype=np.float64), axis=-1)
    level = 10 * np.log10(np.maximum(power, 1e-20))
    loudest = float(level.max())
    if loudest < SILENCE_DBFS:
        raise InvalidRequestError(
            f"{field}: expected a voice above {SILENCE_DBFS:g} dBFS, got {loudest:.1f} dBFS: silence"
        )
    active: NDArray[np.bool_] = level >= max(SILENCE_DBFS, loudest - ACTIVE_RANGE_DB)
    seconds = int(active.sum()) * _FRAME_S
    if seconds < MIN_ACTIVE_S:
        raise InvalidRequestError(
            f"{field}: expected at least {MIN_ACTIVE_S:g} s of voice above {SILENCE_DBFS:g} dBFS, got {seconds:.2f} s"
        )
    return active


def _voice_warnings(recording: Recording, audio44: Samples, active: NDArray[np.bool_]) -> list[str]:
    """Describe the faults that make a reference worse, for the report."""
    warnings = []
    clipped = float(np.mean(np.abs(recording.audio) >= _FULL_SCALE))
    if clipped > _MANY_CLIPPED:
        warnings.append(f"clipping: {clipped:.2%} of the samples are at full scale")
    if recording.sample_rate_hz < _BAND_RATE_HZ:
        warnings.append(f"narrow band: {recording.sample_rate_hz} Hz carries nothing above 4 kHz worth having")
    elif _share_above_band(audio44, active) < _EMPTY_BAND:
        warnings.append("narrow band: nothing above 4 kHz")
    if recording.duration_s < _SHORT_S:
        warnings.append(f"short: {recording.duration_s:.1f} s, better {_SHORT_S:g} s or more")
    share = float(active.mean())
    if share < _FEW_ACTIVE:
        warnings.append(f"little voice: in {share:.0%} of the time")
    return warnings


def _share_above_band(audio44: Samples, active: NDArray[np.bool_]) -> float:
    """Share of the voice's energy above 4 kHz."""
    pieces = _voice_frames(audio44)[active]
    window = np.hanning(pieces.shape[1])
    power = np.square(np.abs(np.fft.rfft(pieces * window, axis=-1))).sum(axis=0)
    first = round(_BAND_HZ * _FRAME_S) + 2  # bins are 50 Hz apart; the window's lobe is two wide
    return float(power[first:].sum() / max(power[1:].sum(), 1e-30))


def read_consent(inputs: Mapping[str, Array]) -> str:
    """Read the consent to the use of the voice: its giver and form; "" without a voice.

    The text is written to the report only: neither logs nor error messages repeat it.

    Raises:
        InvalidRequestError: the text is missing or too long, or has control characters, line breaks or characters that
            override the reading direction.
    """
    if not {"voice", "voice_audio", "voice_key"} & set(inputs):
        return ""
    text = read_text(inputs, "voice_consent").strip()
    if not text:
        raise InvalidRequestError(
            f"voice_consent: missing, expected who consents to the use of the voice and how, 1 to {MAX_CONSENT_CHARS}"
            " characters"
        )
    if len(text) > MAX_CONSENT_CHARS:
        raise InvalidRequestError(f"voice_consent: expected at most {MAX_CONSENT_CHARS} characters, got {len(text)}")
    for position, character in enumerate(text):
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in BIDI_CONTROLS:
            raise InvalidRequestError(
                "voice_consent: expected text without control characters, line breaks or overrides of direction, got"
                f" U+{ord(character):04X} at {position}"
            )
    return text
