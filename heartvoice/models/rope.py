"""Rotary position embedding with interleaved pairs, shared by HeartMuLa and HeartCodec.

Source: Su et al., "RoFormer", 2021; frequency scaling as in Llama 3 (heartmula spec, section 4).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def rope_frequencies(
    head_dim: int,
    base: float,
    scale_factor: float = 1.0,
    *,
    low_freq_factor: float = 1.0,
    high_freq_factor: float = 4.0,
    old_context_len: int = 8192,
) -> npt.NDArray[np.float32]:
    """Compute the radians per position of each pair, with Llama-3 scaling.

    Args:
        head_dim: width of one head.
        base: frequency base; pair j rotates by base^(-2j / head_dim).
        scale_factor: divides low frequencies; 1 changes none.
        low_freq_factor: wavelengths above old_context_len / low_freq_factor are scaled fully.
        high_freq_factor: wavelengths below old_context_len / high_freq_factor are not scaled.
        old_context_len: context the unscaled frequencies were trained on, in positions.

    Returns:
        float32 [head_dim / 2]. Every operation is rounded to float32, as in training: at position 8191 exact
        frequencies would differ by 3e-4 rad.
    """
    one = np.float32(1)
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    plain = one / np.power(float(base), exponent.astype(np.float64)).astype(np.float32)
    if scale_factor == 1.0:
        return plain
    wavelength = np.float32(2.0 * math.pi) / plain
    blend = (np.float32(old_context_len) / wavelength - np.float32(low_freq_factor)) / np.float32(
        high_freq_factor - low_freq_factor
    )
    blend = np.clip(blend, np.float32(0), one)  # 0 above the upper wavelength limit, 1 below the lower one
    return (one - blend) * plain / np.float32(scale_factor) + blend * plain


class Rotary:
    """Rotation angles of one transformer. Not a buffer: casting a module must not cast the table."""

    def __init__(self, frequencies: npt.NDArray[np.float32]) -> None:
        """Store float32 [head_dim / 2] frequencies; copies on devices are made on first use."""
        self.frequencies = frequencies
        self._on_device: dict[torch.device, Tensor] = {}

    def __call__(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines.

        Args:
            position: int64 [...].

        Returns:
            Two float32 [..., head_dim / 2].
        """
        theta = self._on_device.get(position.device)
        if theta is None:
            theta = torch.from_numpy(self.frequencies).to(position.device)
            self._on_device[position.device] = theta
        angle = position.to(torch.float32)[..., None] * theta  # the product is rounded to float32 too
        return angle.cos(), angle.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (2j, 2j + 1) of the last axis.

    Args:
        x: [..., head_dim], any float dtype.
        cos: float32, broadcastable to [..., head_dim / 2].
        sin: like `cos`.

    Returns:
        Shape and dtype of `x`; computed in float32.
    """
    pairs = x.to(torch.float32).reshape(*x.shape[:-1], -1, 2)
    even, odd = pairs[..., 0], pairs[..., 1]
    turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1)
    return turned.flatten(-2).to(x.dtype)
