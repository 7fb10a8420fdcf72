"""Velocity network of the flow: a transformer over mel frames with long skips, modulated by time.

Names are those of the official checkpoint. Source: seed_vc spec, section 9; W. Peebles and S. Xie, "Scalable Diffusion
Models with Transformers", 2023; F. Bao and others, "All are Worth Words: A ViT Backbone for Diffusion Models", 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from heartvoice.config.svc import DitConfig
from heartvoice.models.rope import Rotary, apply_rope, rope_frequencies

NORM_EPS = 1e-5
TIME_WIDTH = 256
TIME_FACTOR = 1000.0
ROPE_BASE = 10_000.0


def skip_source(layer: int, depth: int) -> int | None:
    """Layer whose output `layer` takes as a skip; second-half layers mirror first-half ones."""
    return depth // 2 - (layer - depth // 2) if layer > depth // 2 else None


class RmsNorm(nn.Module):
    """Root-mean-square norm with learned scales."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to the same."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPS) * self.weight


class AdaptiveNorm(nn.Module):
    """Norm with scale and shift from time, without adding 1 and without an activation before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project_layer = nn.Linear(width, 2 * width)
        self.norm = RmsNorm(width)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """[B, T, D] and time's vector [B, D] to [B, T, D]."""
        scale, shift = self.project_layer(time)[:, None].chunk(2, dim=-1)
        out: Tensor = scale * self.norm(x) + shift
        return out


class Attention(nn.Module):
    """Bidirectional multi-head attention with rotary positions."""

    def __init__(self, sizes: DitConfig) -> None:
        super().__init__()
        self.n_heads = sizes.num_heads
        self.wqkv = nn.Linear(sizes.hidden_dim, 3 * sizes.hidden_dim, bias=False)
        self.wo = nn.Linear(sizes.hidden_dim, sizes.hidden_dim, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """[B, T, D] to the same; `rotation` is cosines and sines [T, head_dim / 2]."""
        heads = self.wqkv(x).reshape(*x.shape[:2], 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)  # [3, B, H, T, hd]
        query, key, value = heads
        mixed = scaled_dot_product_attention(apply_rope(query, *rotation), apply_rope(key, *rotation), value)
        out: Tensor = self.wo(mixed.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """w2(silu(w1 x) * w3 x)."""

    def __init__(self, sizes: DitConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(sizes.hidden_dim, sizes.ffn_dim, bias=False)
        self.w3 = nn.Linear(sizes.hidden_dim, sizes.ffn_dim, bias=False)
        self.w2 = nn.Linear(sizes.ffn_dim, sizes.hidden_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] to the same."""
        out: Tensor = self.w2(silu(self.w1(x)) * self.w3(x))
        return out


class Layer(nn.Module):
    """One transformer layer; second-half layers also take an earlier layer's output."""

    def __init__(self, sizes: DitConfig, *, skips: bool) -> None:
        super().__init__()
        width = sizes.hidden_dim
        self.attention = Attention(sizes)
        self.feed_forward = FeedForward(sizes)
        self.attention_norm = AdaptiveNorm(width)
        self.ffn_norm = AdaptiveNorm(width)
        self.skip_in_linear = nn.Linear(2 * width, width) if skips else None

    def forward(self, x: Tensor, time: Tensor, rotation: tuple[Tensor, Tensor], skip: Tensor | None) -> Tensor:
        """[B, T, D] to the same."""
        if self.skip_in_linear is not None:
            if skip is None:
                raise ValueError("skip: expected an earlier layer's output, got none")
            x = self.skip_in_linear(torch.cat([x, skip], dim=-1))
        x = x + self.attention(self.attention_norm(x, time), rotation)
        out: Tensor = x + self.feed_forward(self.ffn_norm(x, time))
        return out


class Transformer(nn.Module):
    """The layers and a final adaptive norm."""

    def __init__(self, sizes: DitConfig) -> None:
        super().__init__()
        depth = sizes.depth
        self.layers = nn.ModuleList(Layer(sizes, skips=skip_source(i, depth) is not None) for i in range(depth))
        self.norm = AdaptiveNorm(sizes.hidden_dim)
        self.rotary = Rotary(rope_frequencies(sizes.head_dim, ROPE_BASE))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """[B, T, D] to the same."""
        rotation = self.rotary(torch.arange(x.shape[1], device=x.device))
        outputs: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            source = skip_source(index, len(self.layers))
            x = layer(x, time, rotation, None if source is None else outputs[source])
            outputs.append(x)
        out: Tensor = self.norm(x, time)
        return out


class TimeEmbedder(nn.Module):
    """Two linear layers on sines and cosines of stored frequencies."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_WIDTH, width), nn.SiLU(), nn.Linear(width, width))
        self.register_buffer("freqs", torch.zeros(TIME_WIDTH // 2))

    def forward(self, t: Tensor) -> Tensor:
        """float32 [B] in [0, 1] to [B, D]; cosines come first."""
        angle = TIME_FACTOR * t[:, None] * self.get_buffer("freqs")
        out: Tensor = self.mlp(torch.cat([angle.cos(), angle.sin()], dim=-1))
        return out


class Estimator(nn.Module):
    """The network under the checkpoint's prefix `estimator.`."""

    def __init__(self, sizes: DitConfig) -> None:
        super().__init__()
        width, n_mels = sizes.hidden_dim, sizes.in_channels
        self.transformer = Transformer(sizes)
        self.cond_projection = nn.Linear(sizes.content_dim, width)
        self.t_embedder = TimeEmbedder(width)
        self.final_mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, n_mels))
        self.cond_x_merge_linear = nn.Linear(2 * n_mels + width + sizes.style_dim, width)

    def merge(self, x: Tensor, prompt_x: Tensor, style: Tensor, cond: Tensor) -> Tensor:
        """Merge all inputs of a frame to [B, T, D]; arguments as for `Velocity`."""
        styles = style[:, None].expand(-1, x.shape[1], -1)
        out: Tensor = self.cond_x_merge_linear(torch.cat([x, prompt_x, self.cond_projection(cond), styles], dim=-1))
        return out

    def finish(self, merged: Tensor, t: Tensor) -> Tensor:
        """Compute velocities [B, T, M] from merged frames [B, T, D] at times [B]."""
        out: Tensor = self.final_mlp(self.transformer(merged, self.t_embedder(t)))
        return out


class Velocity(nn.Module):
    """Velocity of the flow; the rows of a batch are independent."""

    def __init__(self, sizes: DitConfig) -> None:
        super().__init__()
        self.sizes = sizes
        self.estimator = Estimator(sizes)
        self._read = frozenset(self.state_dict())

    def forward(self, x: Tensor, prompt_x: Tensor, style: Tensor, cond: Tensor, t: Tensor) -> Tensor:
        """Compute the velocity, with one time per row.

        Args:
            x: float32 [B, T, M], the state; zero on the prompt's frames.
            prompt_x: float32 [B, T, M], the prompt's mel on its frames and zero elsewhere.
            style: float32 [B, S].
            cond: float32 [B, T, D'].
            t: float32 [B] in [0, 1).

        Returns:
            float32 [B, T, M]. An unconditional row has zeros in prompt_x, style and cond; their biases stay.
        """
        velocity: Tensor = self.estimator.finish(self.estimator.merge(x, prompt_x, style, cond), t)
        return velocity

    def never_read(self, name: str) -> bool:
        """Return True for unused tensors: retired layers, and unused skips of the first half."""
        return name not in self._read
