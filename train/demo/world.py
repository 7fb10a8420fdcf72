"""What the demo world's sound is made of, as hashes: weights belong to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256

from train.demo import tables, voice
from train.demo.renderer import GAINS, PLACES


def identity() -> Mapping[str, str]:
    """Return hashes of the spellings, the sounds, and of how they are sung and mixed."""
    return {**tables.hashes(), "mix": sha256(json.dumps([GAINS, PLACES, voice.RULES]).encode()).hexdigest()}
