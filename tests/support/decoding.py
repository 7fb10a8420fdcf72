"""Reads audio files as a request carries them, for tests of the decoder."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
import soundfile

from heartvoice.audio.recordings import Recording, read_recording
from heartvoice.contracts.constants import MAX_RECORDING_S, MIN_RECORDING_S
from heartvoice.contracts.field_checks import RecordingInputs
from heartvoice.errors import InvalidRequestError

CONVERT = "convert it, for example: ffmpeg -i INPUT -ac 2 OUTPUT.flac"
FORMATS = [
    ("WAV", "PCM_U8", 0.02), ("WAV", "PCM_16", 1e-4), ("WAV", "PCM_24", 1e-6), ("WAV", "PCM_32", 1e-6),
    ("WAV", "FLOAT", 0.0), ("WAV", "DOUBLE", 0.0), ("WAVEX", "PCM_24", 1e-6), ("FLAC", "PCM_16", 1e-4),
    ("FLAC", "PCM_24", 1e-6), ("OGG", "VORBIS", 0.3), ("OGG", "OPUS", 0.3), ("MP3", "MPEG_LAYER_III", 0.3),
]  # fmt: skip
RATE_HZ = 48_000


def bytes_input(data: bytes) -> np.ndarray:
    return np.array([data], np.object_)


def from_file(data: bytes, *, min_s: float = MIN_RECORDING_S, max_s: float = MAX_RECORDING_S) -> Recording:
    return read_recording({"file": bytes_input(data)}, RecordingInputs(limits_s=(min_s, max_s)))


def refusal(data: bytes, **limits: float) -> str:
    with pytest.raises(InvalidRequestError) as error:
        from_file(data, **limits)
    assert str(error.value).startswith("file: expected ")
    assert len(str(error.value)) < 250
    return str(error.value)


def samples_of(data: bytes) -> np.ndarray:
    """What libsndfile reads of an ordinary file: float32 [C, N]."""
    audio: np.ndarray = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0].T
    return audio


def peak_memory(data: bytes, **limits: float) -> int:
    tracemalloc.start()
    try:
        refusal(data, **limits)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
