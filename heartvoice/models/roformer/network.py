"""BS-RoFormer and MelBand-RoFormer between STFT and inverse STFT.

Module names are those of the published checkpoints. Source: roformer spec, sections 2 and 3.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from heartvoice.config.roformer import RoformerConfig
from heartvoice.models.roformer.bands import overlap_table
from heartvoice.models.rope import apply_rope

NORM_FLOOR = 1e-12
"""Smallest length that a vector is divided by."""
EXPANSION = 4
"""Hidden width of feed-forward layers and mask estimators, in widths of the network."""


class Norm(nn.Module):
    """Scales vectors to the length sqrt(dim), then each value by a gain."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))
        self.scale = math.sqrt(dim)

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] to the same shape."""
        length = x.square().sum(dim=-1, keepdim=True).clamp(min=NORM_FLOOR**2).sqrt()
        return x / length * self.scale * self.gamma


class RotaryFrequencies(nn.Module):
    """Radians per position of each pair, as checkpoints store them with every attention."""

    def __init__(self, dim_head: int) -> None:
        super().__init__()
        exponent = torch.arange(0, dim_head, 2).float() / dim_head
        self.register_buffer("freqs", 1.0 / 10_000.0**exponent)

    def forward(self, length: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of positions 0 to `length` - 1, [length, dim_head / 2]."""
        freqs = self.get_buffer("freqs")
        angle = torch.arange(length, device=freqs.device, dtype=torch.float32)[:, None] * freqs.float()
        return angle.cos(), angle.sin()


class Attention(nn.Module):
    """Attention over a whole sequence, with rotary positions and a gate for each head."""

    def __init__(self, sizes: RoformerConfig) -> None:
        super().__init__()
        width = sizes.heads * sizes.dim_head
        self.heads = sizes.heads
        self.norm = Norm(sizes.dim)
        self.to_qkv = nn.Linear(sizes.dim, 3 * width, bias=False)
        self.to_gates = nn.Linear(sizes.dim, sizes.heads)
        self.to_out = nn.ModuleList([nn.Linear(width, sizes.dim, bias=False)])
        self.rotary_embed = RotaryFrequencies(sizes.dim_head)

    def forward(self, x: Tensor) -> Tensor:
        """[N, length, dim] to the same shape, without the residual."""
        normed = self.norm(x)
        qkv = self.to_qkv(normed).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        cos, sin = self.rotary_embed(x.shape[1])
        q, k = (apply_rope(part, cos, sin) for part in (qkv[0], qkv[1]))
        heads = functional.scaled_dot_product_attention(q, k, qkv[2])
        gates = self.to_gates(normed).sigmoid().transpose(1, 2)[..., None]
        out: Tensor = self.to_out[0]((heads * gates).transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """Norm, wide layer, exact GELU, narrow layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = EXPANSION * dim
        # Checkpoints count the dropout layers of training, too.
        self.net = nn.Sequential(
            Norm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, dim), nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] to the same shape, without the residual."""
        out: Tensor = self.net(x)
        return out


class Transformer(nn.Module):
    """Attention and feed-forward layers over one axis; MelBand-RoFormer closes them with a norm."""

    def __init__(self, sizes: RoformerConfig, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList([Attention(sizes), FeedForward(sizes.dim)]) for _ in range(depth))
        self.norm = Norm(sizes.dim) if sizes.kind == "mel" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[N, length, dim] to the same shape."""
        for attention, feed_forward in _pairs(self.layers):
            x = x + attention(x)
            x = x + feed_forward(x)
        out: Tensor = self.norm(x)
        return out


class BandSplit(nn.Module):
    """One norm and one linear layer for each band."""

    def __init__(self, sizes: RoformerConfig) -> None:
        super().__init__()
        self.spans = sizes.band_features
        self.to_features = nn.ModuleList(
            nn.Sequential(Norm(end - start), nn.Linear(end - start, sizes.dim)) for start, end in self.spans
        )

    def forward(self, features: Tensor) -> Tensor:
        """[B, T, features] to [B, T, bands, dim]."""
        bands = [
            layer(features[..., start:end]) for layer, (start, end) in zip(self.to_features, self.spans, strict=True)
        ]
        return torch.stack(bands, dim=2)


class MaskEstimator(nn.Module):
    """One perceptron with a gated output for each band of one stem."""

    def __init__(self, sizes: RoformerConfig) -> None:
        super().__init__()
        widths = [sizes.dim, *[EXPANSION * sizes.dim] * (sizes.mask_layers - 1)]
        self.to_freqs = nn.ModuleList(
            nn.Sequential(_perceptron([*widths, 2 * (end - start)]), nn.GLU(dim=-1))
            for start, end in sizes.band_features
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, bands, dim] to the values of all bands, one band after the other, [B, T, band values]."""
        return torch.cat([layer(x[:, :, band]) for band, layer in enumerate(self.to_freqs)], dim=-1)


def _pairs(layers: nn.ModuleList) -> list[tuple[nn.Module, nn.Module]]:
    """Two modules of each layer."""
    return [(layer.get_submodule("0"), layer.get_submodule("1")) for layer in layers]


def _perceptron(widths: list[int]) -> nn.Sequential:
    """Linear layers with tanh between them."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class Roformer(nn.Module):
    """A RoFormer separator: features of a spectrum to the masks of its stems."""

    def __init__(self, sizes: RoformerConfig) -> None:
        super().__init__()
        self.sizes = sizes
        self.band_split = BandSplit(sizes)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                Transformer(sizes, depth) for depth in (sizes.time_transformer_depth, sizes.freq_transformer_depth)
            )
            for _ in range(sizes.depth)
        )
        self.final_norm = Norm(sizes.dim) if sizes.kind == "bs" else nn.Identity()
        self.mask_estimators = nn.ModuleList(MaskEstimator(sizes) for _ in sizes.stems)
        self.table = overlap_table(sizes)

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, T, features] to masks [B, stems, T, features]; real and imaginary parts alternate."""
        x = self.band_split(features)
        for time, band in _pairs(self.layers):
            x = time(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(features), -1)).transpose(1, 2)
            x = band(x.flatten(0, 1)).unflatten(0, (len(features), -1))
        x = self.final_norm(x)
        return torch.stack([self._joined(estimate(x)) for estimate in self.mask_estimators], dim=1)

    def _joined(self, values: Tensor) -> Tensor:
        """Average the values of bands that share a bin: [B, T, band values] to [B, T, features]."""
        if not self.table.overlaps:
            return values
        padded = functional.pad(values, (0, 1))  # an index past the last value adds zero
        total = torch.stack([padded[..., torch.from_numpy(row)] for row in self.table.indices]).sum(dim=0)
        joined: Tensor = total * torch.from_numpy((1 / self.table.counts).astype(np.float32))
        return joined
