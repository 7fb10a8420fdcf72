"""Random numbers addressed by (seed, stage, index), independent of place and order of drawing.

They use the raw output of numpy's Philox, which is stable across numpy versions; `Generator` methods are not. The
normal deviates use float64 logarithms and sines, so another maths library may change a last bit.

Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011; Box and Muller, 1958.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

UNIFORM_MAX = 1.0 - 2.0**-23
"""Largest value of `uniform`; its product with any positive float32 rounds to less than that number."""


def bits(seed: int, stage: str, index: int | str) -> np.random.Philox:
    """Return the bit generator of an address, before its first draw; `index` may be a name."""
    digest = hashlib.sha256(f"heartvoice/{seed}/{len(stage)}:{stage}/{index}".encode()).digest()
    key = np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)
    return np.random.Philox(key=key)


def _raw(seed: int, stage: str, index: int | str, count: int) -> npt.NDArray[np.uint64]:
    raw: npt.NDArray[np.uint64] = np.asarray(bits(seed, stage, index).random_raw(count), dtype=np.uint64)
    return raw


def uniform(seed: int, stage: str, index: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Draw uniform deviates with 23 random bits.

    Args:
        seed: seed of the job.
        stage: name of the drawing stage, for example "lm".
        index: index of the draw in that stage, for example the frame.
        shape: shape of the result; a longer draw begins with the values of a shorter one.

    Returns:
        float32 of that shape, each a multiple of 2^-23 in [0, 1 - 2^-23].
    """
    raw = _raw(seed, stage, index, math.prod(shape)) >> np.uint64(41)
    return (raw.astype(np.float32) * np.float32(2.0**-23)).reshape(shape)


def normal(seed: int, stage: str, index: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Draw standard normal deviates; arguments as for `uniform`.

    Returns:
        float32 of that shape.
    """
    count = math.prod(shape)
    raw = _raw(seed, stage, index, count + count % 2) >> np.uint64(11)
    radius = np.sqrt(-2.0 * np.log((raw[0::2] + np.uint64(1)).astype(np.float64) * 2.0**-53))  # argument in (0, 1]
    angle = raw[1::2].astype(np.float64) * (2.0 * np.pi * 2.0**-53)
    pairs: npt.NDArray[np.float64] = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)
    return pairs.reshape(-1)[:count].astype(np.float32).reshape(shape)
