"""Short encoded files, and keys to sign them with."""

from __future__ import annotations

import functools
import io

import numpy as np
import soundfile

from heartvoice.provenance.certificates import make_chain
from heartvoice.provenance.keys import Keys, file_keys

ENCODINGS = {
    "wav": ("WAV", "PCM_24"), "flac": ("FLAC", "PCM_24"), "mp3": ("MP3", "MPEG_LAYER_III"), "ogg": ("OGG", "VORBIS"),
}  # fmt: skip
VOICE_KEY = bytes(range(32))


@functools.cache
def keys(name: str = "Studio") -> Keys:
    """Keys of a local CA with this organisation."""
    ca, _, chain, key = make_chain(name)
    return file_keys(chain, key, voice_key=VOICE_KEY, anchors=ca)


@functools.cache
def encoded(file_format: str) -> bytes:
    """0.2 s of stereo noise."""
    file = io.BytesIO()
    container, subtype = ENCODINGS[file_format]
    noise = 0.1 * np.random.default_rng(0).standard_normal((9600, 2))
    soundfile.write(file, noise, 48_000, format=container, subtype=subtype)
    return file.getvalue()
