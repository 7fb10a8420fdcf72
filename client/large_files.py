"""Makes of a sound file above a request's limit what can be sent: FLAC, or samples where that is too large as well."""

from __future__ import annotations

import io

import numpy as np
import soundfile
from numpy.typing import NDArray

from heartvoice.audio.decode import SoundFile, decode
from heartvoice.contracts.constants import MAX_FILE_BYTES, MAX_LOCAL_FILE_BYTES

_FULL_SCALE = 1 << 23


def read_large(data: bytes, *, field: str, max_s: float) -> tuple[SoundFile, bytes | None]:
    """Decode a file, and encode it as FLAC of 24 bits if that can be sent; the samples are the same then.

    Args:
        data: content of a file of up to `MAX_LOCAL_FILE_BYTES`.
        field: name of the input, for messages.
        max_s: longest allowed duration.

    Returns:
        The samples, and FLAC; None if it exceeds `MAX_FILE_BYTES`, or if samples are beyond full scale.

    Raises:
        InvalidRequestError: no sound, or too long; see `decode`.
    """
    sound = decode(data, field=field, max_s=max_s, max_bytes=MAX_LOCAL_FILE_BYTES)
    if max(float(sound.audio.max()), -float(sound.audio.min())) > 1.0:
        return sound, None
    return sound, _flac(sound.audio, sound.sample_rate_hz)


def _flac(audio: NDArray[np.float32], rate_hz: int) -> bytes | None:
    """Encode [C, N] within +-1 as FLAC; None as soon as it is too large."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate_hz, len(audio), "PCM_24", format="FLAC") as out:
        for start in range(0, audio.shape[1], rate_hz):
            # By our own hand: libsndfile scales floats by one less than it divides by.
            scaled = np.rint(audio[:, start : start + rate_hz].T * np.float32(_FULL_SCALE))
            out.write(np.minimum(scaled, _FULL_SCALE - 1).astype(np.int32) << 8)
            if file.tell() > MAX_FILE_BYTES:
                return None
    return file.getvalue() if file.tell() <= MAX_FILE_BYTES else None
