"""Recordings as arguments: a path, an encoded file's bytes, or samples with their rate. Nothing is decoded here."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartvoice.audio.encode import source_tags
from heartvoice.client.large_files import read_large
from heartvoice.contracts.claims import NO_SOURCE, Source
from heartvoice.contracts.constants import MAX_CHANNELS, MAX_FILE_BYTES, MAX_LOCAL_FILE_BYTES
from heartvoice.contracts.field_checks import (
    STEMS_LIMITS_S,
    Limits,
    check_duration,
    check_file_size,
    check_rate,
    check_samples,
)
from heartvoice.contracts.provenance import Tags
from heartvoice.errors import InvalidRequestError

RECORDING_NAMES = ("file", "audio", "sample_rate")
VOICE_NAMES = ("voice", "voice_audio", "voice_sample_rate")


@dataclass(frozen=True, eq=False)
class Recording:
    """Sound on its way to a server: an encoded file as it is, or float32 [C, N] with its rate. See `as_recording`."""

    file: bytes | None = None
    audio: NDArray[np.float32] | None = None
    sample_rate_hz: int | None = None
    name: str = ""
    """What messages call it: the argument or option, and the file."""
    warnings: tuple[str, ...] = ()
    """Possible faults that the server does not see, because the file was decoded here."""
    tags: Tags | None = None
    """Of a file that was decoded here; see `source`."""

    def inputs(self, names: tuple[str, str, str] = RECORDING_NAMES) -> dict[str, NDArray[Any]]:
        """The tensors that carry it, under a model's names for file, samples and rate."""
        file, audio, rate = names
        if self.audio is None:
            return {file: np.array([self.file], dtype=object)}
        return {audio: self.audio, rate: np.array([self.sample_rate_hz], np.int64)}

    @cached_property
    def source(self) -> Source:
        """What is kept of it in the tags and manifests of what is made from it.

        The content of a file that was decoded here is not: it was too large to be sent.
        """
        if self.tags is not None:
            return Source(None, self.tags)
        return NO_SOURCE if self.file is None else Source(self.file, source_tags(self.file))

    @property
    def origin(self) -> str:
        """The file's own comment if that says "AI-generated", else ""; what is made from it must not lose this."""
        return self.source.tags.comment


RecordingLike = str | os.PathLike[str] | bytes | bytearray | memoryview | tuple[Any, int | np.integer[Any]] | Recording
"""A recording as the clients take it: a path, an encoded file's bytes, or (float samples [N] or [C, N], rate in Hz)."""


def as_recording(value: RecordingLike, *, field: str = "recording", limits_s: Limits = STEMS_LIMITS_S) -> Recording:
    """Check what can be known without decoding; a file is read, and left to the server to decode and resample.

    A file above `MAX_FILE_BYTES`, such as ten minutes of WAV, is decoded here and sent as FLAC, which has the same
    samples up to 24 bits, or as samples if FLAC is too large.

    Args:
        value: see `RecordingLike`. Samples are mono [N] or [channel, sample], one or two channels; full scale is 1.
        field: what messages call it.
        limits_s: shortest and longest duration of samples.

    Raises:
        InvalidRequestError: naming the field, the limit and the value.
    """
    if isinstance(value, Recording):
        recording = value
    elif isinstance(value, str | os.PathLike):
        recording = _from_file(read_file(value, field), _file_name(value, field), limits_s)
    elif isinstance(value, bytes | bytearray | memoryview):
        recording = _from_file(bytes(value), field, limits_s)
    elif isinstance(value, tuple) and len(value) == 2:
        rate_hz = _checked_rate(value[1], field)
        recording = Recording(audio=_checked_samples(value[0], field), sample_rate_hz=rate_hz, name=field)
    else:
        kind = f"a tuple of {len(value)}" if isinstance(value, tuple) else type(value).__name__
        raise InvalidRequestError(f"{field}: expected a path, bytes or (samples, sample_rate_hz), got {kind}")
    if recording.audio is not None and recording.sample_rate_hz is not None:
        check_rate(field, recording.sample_rate_hz)
        check_duration(field, recording.audio.shape[1] / recording.sample_rate_hz, limits_s)
    return recording


def read_file(path: str | os.PathLike[str], field: str) -> bytes:
    """Read a recording's file: at most one byte more than is allowed, of a file that grows too.

    Raises:
        InvalidRequestError: it is no file, cannot be read or is too large.
    """
    name = os.fspath(path)
    try:
        place = Path(name)
        if place.exists() and not place.is_file():
            kind = "a folder" if place.is_dir() else "something else"
            raise InvalidRequestError(f"{field}: expected a file, got {name!r}, which is {kind}")
        with place.open("rb") as file:
            # Before it is read; a pipe has no size yet.
            check_file_size(_file_name(path, field), os.fstat(file.fileno()).st_size or 1, MAX_LOCAL_FILE_BYTES)
            return file.read(MAX_LOCAL_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidRequestError(f"{field}: cannot read {name!r}: {reason}") from error


def _file_name(path: str | os.PathLike[str], field: str) -> str:
    """Return what messages call a file that the caller named."""
    name = os.fspath(path)
    return f"{field} {name if name.isprintable() else repr(name)}"


def _from_file(data: bytes, name: str, limits_s: Limits) -> Recording:
    """Take a file as it is, or decode it here if it is too large to be sent."""
    check_file_size(name, len(data), MAX_LOCAL_FILE_BYTES)
    if len(data) <= MAX_FILE_BYTES:
        return Recording(file=data, name=name)
    sound, flac = read_large(data, field=name, max_s=limits_s[1])
    check_duration(name, sound.audio.shape[1] / sound.sample_rate_hz, limits_s)
    check_samples(name, sound.audio)
    decoded_here = Recording(name=name, warnings=sound.warnings, tags=source_tags(data))
    if flac is not None:
        return replace(decoded_here, file=flac)
    return replace(decoded_here, audio=sound.audio, sample_rate_hz=sound.sample_rate_hz)


def _checked_rate(rate_hz: object, field: str) -> int:
    if isinstance(rate_hz, bool) or not isinstance(rate_hz, int | np.integer):
        raise InvalidRequestError(f"{field}: expected an integer sample_rate_hz, got {rate_hz!r}")
    return int(rate_hz)


def _checked_samples(samples: object, field: str) -> NDArray[np.float32]:
    """Float samples as float32 [C, N]."""
    try:
        array = np.asarray(samples)
    except ValueError as error:  # a ragged list
        raise InvalidRequestError(f"{field}: expected samples [N] or [channel, N], got {error}") from error
    if array.dtype.kind != "f":
        raise InvalidRequestError(f"{field}: expected float samples with full scale 1, got {array.dtype}")
    shape = list(array.shape)
    if array.ndim == 2 and not 1 <= shape[0] <= MAX_CHANNELS and 1 <= shape[1] <= MAX_CHANNELS:
        raise InvalidRequestError(f"{field}: expected [channel, sample], got {shape}: transpose it")
    if array.ndim not in (1, 2) or (array.ndim == 2 and not 1 <= shape[0] <= MAX_CHANNELS) or not array.size:
        raise InvalidRequestError(
            f"{field}: expected samples [N] or [channel, N] of 1 to {MAX_CHANNELS} channels, got {shape}"
        )
    with np.errstate(over="ignore"):
        # A copy: the caller may go on to use the array while the request is under way.
        audio = np.array(np.atleast_2d(array), dtype=np.float32, order="C")
    check_samples(field, audio)
    return audio
