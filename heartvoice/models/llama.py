"""The Llama decoder that HeartMuLa uses for backbone and depth decoder, and its key/value cache.

Source: heartmula spec, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from heartvoice.config.presets import TransformerConfig
from heartvoice.models.rope import Rotary, apply_rope, rope_frequencies

KeyValue = tuple[Tensor, Tensor]
"""Keys and values of one layer, each [R, Hkv, positions, head_dim]; RoPE is already applied to the keys."""


class RMSNorm(nn.Module):
    """Root-mean-square norm whose scale is applied after the cast back."""

    def __init__(self, width: int, eps: float) -> None:
        """Start with a scale of one."""
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to the same shape and dtype; statistics in float32."""
        wide = x.to(torch.float32)
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return normed.to(x.dtype) * self.scale


class Attention(nn.Module):
    """Causal attention with grouped queries over cached and new positions."""

    def __init__(self, sizes: TransformerConfig) -> None:
        """Make the four projections."""
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = sizes.num_heads, sizes.num_kv_heads, sizes.head_dim
        kv_width = sizes.num_kv_heads * sizes.head_dim
        self.q_proj = nn.Linear(sizes.embed_dim, sizes.embed_dim, bias=False)
        self.k_proj = nn.Linear(sizes.embed_dim, kv_width, bias=False)
        self.v_proj = nn.Linear(sizes.embed_dim, kv_width, bias=False)
        self.output_proj = nn.Linear(sizes.embed_dim, sizes.embed_dim, bias=False)

    def forward(
        self, x: Tensor, rotation: KeyValue, past: KeyValue | None, past_mask: Tensor | None
    ) -> tuple[Tensor, KeyValue]:
        """Compute attention of T new positions.

        Scores of past and new keys are computed separately and joined at the softmax, so the cache is never copied.

        Args:
            x: [R, T, E].
            rotation: cosines and sines, each float32 [R, T, head_dim / 2].
            past: cached keys and values, or None.
            past_mask: bool [R, P], true where the cache holds a position of that row.

        Returns:
            [R, T, E], and the new keys and values [R, Hkv, T, head_dim].
        """
        cos, sin = (table[:, None] for table in rotation)  # [R, 1, T, hd/2]
        query = apply_rope(self._heads(self.q_proj(x)), cos, sin) * self.head_dim**-0.5
        key = apply_rope(self._heads(self.k_proj(x)), cos, sin)
        value = self._heads(self.v_proj(x))
        rows, _, length, width = query.shape
        # Query head h uses kv head h // group: a group's heads become additional query positions of one kv head.
        query = query.reshape(rows, self.num_kv_heads, -1, width)  # [R, Hkv, G*T, hd]
        grouped = (rows, self.num_kv_heads, self.num_heads // self.num_kv_heads, length, -1)
        scores = (query @ key.transpose(-1, -2)).to(torch.float32).reshape(grouped)  # [R, Hkv, G, T, T]
        if length > 1:
            future = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(future, -torch.inf)
        if past is None or past_mask is None:
            weights = scores.softmax(-1).to(x.dtype).flatten(2, 3)
            mixed = weights @ value
        else:
            old = (query @ past[0].transpose(-1, -2)).to(torch.float32).reshape(grouped)
            old = old.masked_fill(~past_mask[:, None, None, None], -torch.inf)
            weights = torch.cat([old, scores], dim=-1).softmax(-1).to(x.dtype).flatten(2, 3)
            n_past = old.shape[-1]
            mixed = weights[..., :n_past] @ past[1] + weights[..., n_past:] @ value
        mixed = mixed.reshape(rows, self.num_heads, length, width).transpose(1, 2).flatten(2)
        out: Tensor = self.output_proj(mixed)
        return out, (key, value)

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], -1, self.head_dim).transpose(1, 2)  # [R, T, H*hd] -> [R, H, T, hd]


class GatedMLP(nn.Module):
    """w2(silu(w1 x) * w3 x)."""

    def __init__(self, sizes: TransformerConfig) -> None:
        """Make gate, down and up."""
        super().__init__()
        self.w1 = nn.Linear(sizes.embed_dim, sizes.intermediate_dim, bias=False)
        self.w2 = nn.Linear(sizes.intermediate_dim, sizes.embed_dim, bias=False)
        self.w3 = nn.Linear(sizes.embed_dim, sizes.intermediate_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., E] to [..., E]."""
        out: Tensor = self.w2(silu(self.w1(x)) * self.w3(x))
        return out


class Layer(nn.Module):
    """One pre-norm layer."""

    def __init__(self, sizes: TransformerConfig) -> None:
        """Make attention, MLP and their norms."""
        super().__init__()
        self.sa_norm = RMSNorm(sizes.embed_dim, sizes.norm_eps)
        self.attn = Attention(sizes)
        self.mlp_norm = RMSNorm(sizes.embed_dim, sizes.norm_eps)
        self.mlp = GatedMLP(sizes)

    def forward(
        self, x: Tensor, rotation: KeyValue, past: KeyValue | None, past_mask: Tensor | None
    ) -> tuple[Tensor, KeyValue]:
        """Arguments and results are those of `Attention.forward`."""
        attended, new = self.attn(self.sa_norm(x), rotation, past, past_mask)
        x = x + attended
        x = x + self.mlp(self.mlp_norm(x))
        return x, new


class Transformer(nn.Module):
    """All layers and the final norm; no token embedding and no head."""

    def __init__(self, sizes: TransformerConfig) -> None:
        """Make the layers; the RoPE table stays float32 in every dtype of the module."""
        super().__init__()
        self.sizes = sizes
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.num_layers))
        self.norm = RMSNorm(sizes.embed_dim, sizes.norm_eps)
        self.rotary = Rotary(rope_frequencies(sizes.head_dim, sizes.rope_base, sizes.rope_scale_factor))

    def forward(
        self, x: Tensor, position: Tensor, past: Sequence[KeyValue] | None = None
    ) -> tuple[Tensor, list[KeyValue]]:
        """Run T new positions after each row's cached positions.

        Args:
            x: [R, T, E] embeddings.
            position: int64 [R], number of valid positions per row in `past`, which is the first new position.
            past: for each layer, keys and values [R, Hkv, P, head_dim], of which row r uses the first
                position[r]; None if no row has any.

        Returns:
            float32 [R, T, E] after the final norm, and each layer's new keys and values [R, Hkv, T, head_dim], which
            the caller writes into its cache.
        """
        steps = torch.arange(x.shape[1], device=x.device)
        rotation = self.rotary(position[:, None] + steps)
        if past is not None and past[0][0].shape[2] == 0:
            past = None
        past_mask = None
        if past is not None:
            past_mask = torch.arange(past[0][0].shape[2], device=x.device) < position[:, None]
        new = []
        for index, layer in enumerate(self.layers):
            x, layer_new = layer(x, rotation, None if past is None else past[index], past_mask)
            new.append(layer_new)
        hidden: Tensor = self.norm(x)
        return hidden.to(torch.float32), new


class KVCache:
    """A static buffer of keys and values, owned by the transformer's caller.

    The caller assigns the rows, which may have different lengths. The cache stores no lengths, so it is reused for
    another song by starting at position 0.
    """

    def __init__(
        self,
        sizes: TransformerConfig,
        rows: int,
        max_positions: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Allocate [rows, Hkv, max_positions, head_dim] twice for each layer, zeroed."""
        shape = (rows, sizes.num_kv_heads, max_positions, sizes.head_dim)
        self.rows, self.max_positions = rows, max_positions
        self.layers: list[KeyValue] = [
            (torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))
            for _ in range(sizes.num_layers)
        ]

    def past(self, used: int | None = None, rows: int | None = None) -> list[KeyValue]:
        """Return each layer's first `used` positions of the first `rows` rows, as views; None means all."""
        return [(key[:rows, :, :used], value[:rows, :, :used]) for key, value in self.layers]

    def write(self, new: Sequence[KeyValue], position: Tensor, n_new: Tensor | None = None) -> None:
        """Store new keys and values of a transformer.

        Args:
            new: for each layer, keys and values [R, Hkv, T, head_dim].
            position: int64 [R], position of each row's first new entry.
            n_new: int64 [R], number of valid positions of each row; None if all are. The others are not stored.

        Raises:
            ValueError: a row would exceed `max_positions` (checked for T > 1 only, because it synchronises).
        """
        rows, _, length, _ = new[0][0].shape
        row = torch.arange(rows, device=position.device)
        if length == 1:  # every frame: no synchronisation with the device
            index = (row, slice(None), position)
            for (key, value), (new_key, new_value) in zip(self.layers, new, strict=True):
                key[index] = new_key[:, :, 0].to(key.dtype)
                value[index] = new_value[:, :, 0].to(value.dtype)
            return
        ends = position + (length if n_new is None else n_new)
        if int(ends.max()) > self.max_positions:
            raise ValueError(f"cache: expected at most {self.max_positions} positions, a row needs {int(ends.max())}")
        for r, (start, end) in enumerate(zip(position.tolist(), ends.tolist(), strict=True)):
            for (key, value), (new_key, new_value) in zip(self.layers, new, strict=True):
                key[r, :, start:end] = new_key[r, :, : end - start]
                value[r, :, start:end] = new_value[r, :, : end - start]
