"""The CPU benchmark from end to end at the tiny preset, and its chunking."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.engine_codec import DecoderVariant, Floats, in_chunks


@pytest.mark.parametrize("chunk", [0, 1, 50, 62, 100])
def test_chunks_are_put_together_in_order(chunk: int) -> None:
    latents = np.arange(2 * 1 * 131, dtype=np.float32).reshape(2, 1, 131)
    calls: list[int] = []

    def decode(part: Floats) -> Floats:
        calls.append(part.shape[2])
        return part.repeat(4, axis=2)

    np.testing.assert_array_equal(in_chunks(decode, latents, chunk, 4), latents[:, 0].repeat(4, axis=1))
    assert max(calls) <= (chunk or 131) + 46


def test_variants_have_readable_names() -> None:
    assert [str(DecoderVariant("eager", chunk)) for chunk in (0, 62)] == ["eager, one shot", "eager, chunks of 62"]
