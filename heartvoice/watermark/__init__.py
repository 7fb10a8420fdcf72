"""A mark in the sound itself: written under the music with a secret key, found again without the original."""

from heartvoice.watermark.detection import Detection, detect
from heartvoice.watermark.keys import ALGORITHM, make_key, payload_of, read_key
from heartvoice.watermark.marker import Marker, mark

__all__ = ["ALGORITHM", "Detection", "Marker", "detect", "make_key", "mark", "payload_of", "read_key"]
