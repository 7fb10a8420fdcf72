from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from heartvoice.errors import InvalidRequestError
from tests.support.decoding import RATE_HZ, from_file
from tests.support.music import band, encode

KINDS = (("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None))


SEEDS = tuple(encode(band(1.2, RATE_HZ), RATE_HZ, container, subtype) for container, subtype in KINDS)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_no_bytes_crash_the_decoder(data: st.DataObject) -> None:
    mutated = bytearray(data.draw(st.sampled_from(SEEDS)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    for _ in range(data.draw(st.integers(0, 20))):
        reach = len(mutated) if rng.random() < 0.5 else min(100, len(mutated))
        mutated[int(rng.integers(reach))] = int(rng.integers(256))
    if rng.random() < 0.2:
        mutated = mutated[: int(rng.integers(len(mutated)))]
    try:
        recording = from_file(bytes(mutated), max_s=5.0)
    except InvalidRequestError:
        return
    assert np.isfinite(recording.audio).all()
    assert 1.0 <= recording.duration_s <= 5.0
