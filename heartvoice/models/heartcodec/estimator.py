"""Velocity network of the flow: two stacks of transformer blocks, modulated by time.

Source: heartcodec spec, section 4.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from heartvoice.config.presets import HeartCodecConfig
from heartvoice.models.rope import Rotary, apply_rope, rope_frequencies

NORM_EPS = 1e-6
TIME_WIDTH = 512
TIME_PERIOD = 10_000.0
TIME_FACTOR = 1000.0
ROPE_BASE = 10_000.0


def time_sinusoid(t: Tensor) -> Tensor:
    """Embed flow times: float32 [B] to [B, 512], cosines first."""
    half = TIME_WIDTH // 2
    index = torch.arange(half, dtype=torch.float32, device=t.device)
    angle = t[:, None] * torch.exp(-math.log(TIME_PERIOD) * index / half) * TIME_FACTOR
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def mlp_width(width: int) -> int:
    """Hidden width of a block's MLP: 8/3 of its width, rounded up to a multiple of 256."""
    return 256 * math.ceil((2 * 4 * width // 3) / 256)


def _linear(layer: nn.Linear | nn.Conv1d, x: Tensor) -> Tensor:
    """Apply a layer in its own dtype; the residual stream keeps its dtype after `Estimator.cast_linears`."""
    out: Tensor = layer(x.to(layer.weight.dtype))
    return out


class RMSNorm(nn.Module):
    """Root-mean-square norm in the working dtype."""

    def __init__(self, width: int) -> None:
        """Start with a weight of one."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to the same."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPS) * self.weight


class Attention(nn.Module):
    """Bidirectional multi-head attention."""

    def __init__(self, width: int, head_dim: int) -> None:
        """Make the four projections."""
        super().__init__()
        self.head_dim = head_dim
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """[B, T, D] to the same; `rotation` is cosines and sines [T, head_dim / 2]."""
        query, key, value = (
            _linear(layer, x).reshape(*x.shape[:2], -1, self.head_dim).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = scaled_dot_product_attention(apply_rope(query, *rotation), apply_rope(key, *rotation), value)
        return _linear(self.o_proj, mixed.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """down(silu(gate x) * up x)."""

    def __init__(self, width: int) -> None:
        """Make the three projections."""
        super().__init__()
        hidden = mlp_width(width)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to the same."""
        return _linear(self.down, silu(_linear(self.gate, x)) * _linear(self.up, x))


class Block(nn.Module):
    """One transformer block; time shifts, scales and gates both branches."""

    def __init__(self, width: int, head_dim: int, *, modulated: bool) -> None:
        """Make attention, MLP, norms and the table to which the time modulation is added."""
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.zeros(6, width)) if modulated else None
        self.attn_norm = RMSNorm(width)
        self.attn = Attention(width, head_dim)
        self.mlp_norm = RMSNorm(width)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, modulation: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """[B, T, D] to the same; `modulation` is [B, 6, D]."""
        if self.scale_shift_table is None:
            x = x + self.attn(self.attn_norm(x), rotation)
            refined: Tensor = self.mlp(self.mlp_norm(x))
            return x + refined
        rows = (self.scale_shift_table + modulation)[:, :, None]  # [B, 6, 1, D]
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = rows.unbind(1)
        x = x + gate_a * self.attn(self.attn_norm(x) * (1 + scale_a) + shift_a, rotation)
        refined = self.mlp(self.mlp_norm(x) * (1 + scale_m) + shift_m)
        return x + gate_m * refined


class ProjectLayer(nn.Module):
    """A convolution over three frames, scaled, and a linear layer; no activation."""

    def __init__(self, width_in: int, width_out: int) -> None:
        """Make both layers."""
        super().__init__()
        self.ffn_1 = nn.Conv1d(width_in, width_out, 3, padding=1)
        self.ffn_2 = nn.Linear(width_out, width_out)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, width_in] to [B, T, width_out]."""
        mixed = _linear(self.ffn_1, x.transpose(1, 2)).transpose(1, 2) * 3**-0.5
        return _linear(self.ffn_2, mixed)


class TimestepEmbedder(nn.Module):
    """Two linear layers over the sinusoid."""

    def __init__(self, width: int) -> None:
        """Make both layers."""
        super().__init__()
        self.linear_1 = nn.Linear(TIME_WIDTH, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, sinusoid: Tensor) -> Tensor:
        """[B, 512] to [B, D]."""
        out: Tensor = self.linear_2(silu(self.linear_1(sinusoid)))
        return out


class TimeModulation(nn.Module):
    """Time embedding, and the six modulation rows that are added to every block's table."""

    def __init__(self, width: int) -> None:
        """Make the embedder, under the checkpoint's name `emb.timestep_embedder`, and the linear layer."""
        super().__init__()
        self.emb = nn.ModuleDict({"timestep_embedder": TimestepEmbedder(width)})
        self.linear = nn.Linear(width, 6 * width)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Flow times, float32 [B], to modulation [B, 6, D] and embedding [B, D]."""
        embedding: Tensor = self.emb["timestep_embedder"](time_sinusoid(t))
        modulation: Tensor = self.linear(silu(embedding))
        return modulation.reshape(t.shape[0], 6, -1), embedding


class Estimator(nn.Module):
    """The velocity network."""

    def __init__(self, sizes: HeartCodecConfig) -> None:
        """Make both stacks; the second is twice as wide, with heads twice as wide."""
        super().__init__()
        head_dim, head_dim_2 = sizes.attention_head_dim, 2 * sizes.attention_head_dim
        width, width_2 = sizes.num_attention_heads * head_dim, sizes.num_attention_heads * head_dim_2
        modulated = sizes.norm_type == "ada_norm_single"
        self.proj_in = ProjectLayer(sizes.in_channels, width)
        self.transformer_blocks = nn.ModuleList(
            Block(width, head_dim, modulated=modulated) for _ in range(sizes.num_layers)
        )
        self.norm_out = nn.LayerNorm(width, NORM_EPS, elementwise_affine=False)
        self.scale_shift_table = nn.Parameter(torch.zeros(2, width))
        self.adaln_single = TimeModulation(width)
        self.connection_proj = ProjectLayer(sizes.in_channels + width, width_2)
        self.transformer_blocks_2 = nn.ModuleList(
            Block(width_2, head_dim_2, modulated=modulated) for _ in range(sizes.num_layers_2)
        )
        self.norm_out_2 = nn.LayerNorm(width_2, NORM_EPS, elementwise_affine=False)
        self.scale_shift_table_2 = nn.Parameter(torch.zeros(2, width_2))
        self.adaln_single_2 = TimeModulation(width_2)
        self.proj_out = ProjectLayer(width_2, sizes.out_channels)
        self.rotary = Rotary(rope_frequencies(head_dim, ROPE_BASE))
        self.rotary_2 = Rotary(rope_frequencies(head_dim_2, ROPE_BASE))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Compute the velocity at one time.

        Args:
            x: float32 [B, T, in_channels]: noisy latents, in-context latents, condition.
            t: float32 [B].

        Returns:
            float32 [B, T, out_channels].
        """
        position = torch.arange(x.shape[1], device=x.device)
        rotation, rotation_2 = self.rotary(position), self.rotary_2(position)
        modulation, embedding = self.adaln_single(t)
        hidden = self.proj_in(x)
        for block in self.transformer_blocks:
            hidden = block(hidden, modulation, rotation)
        hidden = _shift_scale(self.norm_out(hidden), self.scale_shift_table, embedding)
        modulation, embedding = self.adaln_single_2(t)
        hidden = self.connection_proj(torch.cat([x, hidden], dim=-1))
        for block in self.transformer_blocks_2:
            hidden = block(hidden, modulation, rotation_2)
        hidden = _shift_scale(self.norm_out_2(hidden), self.scale_shift_table_2, embedding)
        out: Tensor = self.proj_out(hidden)
        return out.to(x.dtype)

    def cast_linears(self, dtype: torch.dtype) -> None:
        """Store the linear layers in `dtype`; norms, time, RoPE and residuals stay float32."""
        for part in (self.transformer_blocks, self.transformer_blocks_2):
            for block in part:
                block.attn.to(dtype)
                block.mlp.to(dtype)
        for layer in (self.proj_in, self.connection_proj, self.proj_out):
            layer.to(dtype)


def _shift_scale(x: Tensor, table: Tensor, embedding: Tensor) -> Tensor:
    """Shift and scale by rows 0 and 1 of table + time embedding (not the modulation)."""
    shift, scale = (table + embedding[:, None])[:, :, None].unbind(1)
    return x * (1 + scale) + shift
