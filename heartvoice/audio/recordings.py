"""Recordings and voice references from requests, checked before any network runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.arrays import Array
from heartvoice.audio.clipping import clipping_warnings, share_clipped
from heartvoice.audio.decode import decode
from heartvoice.audio.dsp import frames, resample
from heartvoice.audio.levels import SILENCE_DBFS, block_levels, voice_level
from heartvoice.audio.polarity import cancelled_side
from heartvoice.contracts.constants import (
    MAX_CHANNELS,
    MAX_VOICE_S,
    STEM_RATE_HZ,
)
from heartvoice.contracts.field_checks import (
    VOICE_REFERENCE,
    RecordingInputs,
    check_duration,
    check_recording,
    check_samples,
)
from heartvoice.errors import InvalidRequestError

Samples = NDArray[np.float32]

ACTIVE_RANGE_DB = 30.0
"""Frames further below the voice's level than this count as silence: they contain the room."""
MIN_ACTIVE_S = 1.0
_FRAME_S = 0.02
_SHORT_S = 10.0
_FEW_ACTIVE = 0.4
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
        """Return float32 [N], the mean of the channels, or the louder one if they cancel each other."""
        mean: Samples = self.audio[0] if len(self.audio) == 1 else self.audio.mean(axis=0, dtype=np.float32)
        loudest = self._cancelled
        return mean if loudest is None else self.audio[loudest]

    @property
    def mono_warnings(self) -> tuple[str, ...]:
        """`warnings`, and what `mono` lost."""
        if self._cancelled is None:
            return self.warnings
        side = ("left", "right")[self._cancelled]
        return (*self.warnings, f"channels: they cancel each other, so only the {side} one is used")

    @property
    def cancels(self) -> bool:
        """Whether the channels cancel each other, so that their mean is no use."""
        return self._cancelled is not None

    @cached_property
    def _cancelled(self) -> int | None:
        """Index of the louder channel if the channels cancel each other."""
        return None if len(self.audio) == 1 else cancelled_side(self.audio, self.sample_rate_hz)


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


def read_recording(inputs: Mapping[str, Array], names: RecordingInputs | None = None) -> Recording:
    """Read a recording that came as an encoded file or as samples with their rate.

    Args:
        inputs: a request's tensors by name.
        names: the inputs that carry it, and its shortest and longest duration; None is a cover's recording.

    Raises:
        InvalidRequestError: names the field, the limit and the value.
    """
    names = names or RecordingInputs()
    check_recording(inputs, names)
    if names.file in inputs:
        data = inputs[names.file].reshape(-1)[0] if inputs[names.file].size == 1 else None
        if not isinstance(data, bytes):
            value = inputs[names.file]
            raise InvalidRequestError(f"{names.file}: expected BYTES [1], got {value.dtype} {list(value.shape)}")
        decoded = decode(data, field=names.file, max_s=names.limits_s[1])
        recording = Recording(decoded.audio, decoded.sample_rate_hz, decoded.warnings)
        check_duration(names.file, recording.duration_s, names.limits_s)
        check_samples(names.file, recording.audio)
        return recording
    audio = inputs[names.audio]
    check_samples(names.audio, audio)
    return Recording(np.ascontiguousarray(audio, np.float32), int(inputs[names.rate][0]))


# --------------------------------------------------------------------------------------------------------------- voices


def read_voice(inputs: Mapping[str, Array]) -> Voice:
    """Read a voice reference from the inputs `voice`, or `voice_audio` and `voice_sample_rate`.

    Of one above `MAX_VOICE_S` the part with the most voice is used, and a warning says which.

    Raises:
        InvalidRequestError: not audio, not 3 to 600 s, or silent; the message gives field, limit and value.
    """
    recording = _best_part(read_recording(inputs, VOICE_REFERENCE))
    audio44 = resample(recording.mono(), recording.sample_rate_hz, STEM_RATE_HZ)
    active = _active_frames(audio44, "voice" if "voice" in inputs else "voice_audio")
    warnings = (*recording.mono_warnings, *_voice_warnings(recording, audio44, active))
    digest = hashlib.sha256(np.ascontiguousarray(audio44, "<f4").tobytes()).hexdigest()
    return Voice(audio44, recording, digest, warnings)


def _best_part(recording: Recording) -> Recording:
    """Cut a long reference to the `MAX_VOICE_S` that hold the most voice."""
    rate_hz, n = recording.sample_rate_hz, recording.audio.shape[1]
    most = int(MAX_VOICE_S * rate_hz)
    if n <= most:
        return recording
    block = round(_FRAME_S * rate_hz)
    counts = np.concatenate([[0], np.cumsum(_active(block_levels(recording.mono(), block)))])
    n_blocks = min(most // block, len(counts) - 1)
    start = min(int(np.argmax(counts[n_blocks:] - counts[:-n_blocks])) * block, n - most)
    used = f"the {MAX_VOICE_S:g} s with the most voice are used, from {start / rate_hz:.1f} s"
    warning = f"long: {recording.duration_s:.1f} s, of which {used}"
    part = np.ascontiguousarray(recording.audio[:, start : start + most])
    return Recording(part, rate_hz, (*recording.warnings, warning))


def _active(level: NDArray[np.floating[Any]]) -> NDArray[np.bool_]:
    """Mark the frames of 20 ms with voice, by their levels in dBFS."""
    active: NDArray[np.bool_] = level >= max(SILENCE_DBFS, voice_level(level, 1 / _FRAME_S) - ACTIVE_RANGE_DB)
    return active


def _voice_frames(audio44: Samples) -> Samples:
    length = round(_FRAME_S * STEM_RATE_HZ)
    return frames(audio44, length, length).astype(np.float32, copy=False)


def _active_frames(audio44: Samples, field: str) -> NDArray[np.bool_]:
    """Mark frames of 20 ms with voice; refuse a reference with less than `MIN_ACTIVE_S`."""
    level = block_levels(audio44, round(_FRAME_S * STEM_RATE_HZ))
    loudest = float(level.max())
    if loudest < SILENCE_DBFS:
        raise InvalidRequestError(
            f"{field}: expected a voice above {SILENCE_DBFS:g} dBFS, got {loudest:.1f} dBFS: silence"
        )
    active = _active(level)
    seconds = int(active.sum()) * _FRAME_S
    if seconds < MIN_ACTIVE_S:
        raise InvalidRequestError(
            f"{field}: expected at least {MIN_ACTIVE_S:g} s of voice within {ACTIVE_RANGE_DB:g} dB of its level, "
            f"got {seconds:.2f} s"
        )
    return active


def _voice_warnings(recording: Recording, audio44: Samples, active: NDArray[np.bool_]) -> list[str]:
    """Describe the faults that make a reference worse, for the report."""
    warnings = clipping_warnings(share_clipped(np.abs(recording.audio)))
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
