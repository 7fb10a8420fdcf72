"""A mark in the sound itself: written under the music with a secret key, found again without the original."""

from heartvoice.watermark.detection import Detection, Evidence, detect
from heartvoice.watermark.keys import ALGORITHM, make_key, pattern_keys, payload_of, read_key
from heartvoice.watermark.marker import Marker, mark

__all__ = [
    "ALGORITHM",
    "Detection",
    "Evidence",
    "Marker",
    "detect",
    "make_key",
    "mark",
    "pattern_keys",
    "payload_of",
    "read_key",
]
