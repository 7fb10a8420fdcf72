"""Mixes more than two channels down to stereo, by ITU-R BS.775."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

MOST_CHANNELS = 8
_HALF_POWER = math.sqrt(0.5)
_GAINS = {
    "FL": (1.0, 0.0), "FR": (0.0, 1.0), "FC": (_HALF_POWER, _HALF_POWER), "LFE": (0.0, 0.0),
    "BL": (_HALF_POWER, 0.0), "BR": (0.0, _HALF_POWER), "SL": (_HALF_POWER, 0.0), "SR": (0.0, _HALF_POWER),
    "BC": (0.5, 0.5),
}  # fmt: skip
"""Left and right gain of each position: table 2 of ITU-R BS.775-3, for 3/2 and (BC) 3/1; it leaves the LFE out."""
_MASK_BITS = ("FL", "FR", "FC", "LFE", "BL", "BR", "", "", "BC", "SL", "SR")
"""Positions of a WAV header's channel mask from bit 0; those that BS.775 does not have are empty."""
_WAV_ORDERS = {
    3: "FL FR FC", 4: "FL FR BL BR", 5: "FL FR FC BL BR", 6: "FL FR FC LFE BL BR", 7: "FL FR FC LFE BC SL SR",
    8: "FL FR FC LFE BL BR SL SR",
}  # fmt: skip
"""Order without a mask, in WAV and in FLAC (RFC 9639, section 9.1.3)."""
_VORBIS_ORDERS = {
    3: "FL FC FR", 4: "FL FR BL BR", 5: "FL FC FR BL BR", 6: "FL FC FR BL BR LFE", 7: "FL FC FR SL SR BC LFE",
    8: "FL FC FR SL SR BL BR LFE",
}  # fmt: skip
"""Order in OGG Vorbis (specification, section 4.3.9) and Opus (RFC 7845, section 5.1.1.2)."""


def channel_order(n_channels: int, *, container: str, mask: int = 0) -> tuple[str, ...]:
    """Return the positions of 3 to 8 channels, such as `("FL", "FR", "FC")`.

    Args:
        n_channels: number of channels.
        container: "OGG" has an order of its own.
        mask: channel mask of a WAV header; one that does not name every channel counts as none.

    Returns:
        The positions; an empty name is one that BS.775 does not have.
    """
    if mask.bit_count() == n_channels:
        return tuple(_MASK_BITS[bit] if bit < len(_MASK_BITS) else "" for bit in range(32) if mask >> bit & 1)
    orders = _VORBIS_ORDERS if container == "OGG" else _WAV_ORDERS
    return tuple(orders[n_channels].split())


def downmix_gains(order: tuple[str, ...]) -> NDArray[np.float32]:
    """Return the gains, float32 [2, C], that make stereo of channels at these positions."""
    return np.array([_GAINS[position] for position in order], np.float32).T
