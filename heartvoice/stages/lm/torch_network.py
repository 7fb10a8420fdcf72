"""One frame of HeartMuLa for many rows on a GPU: fewer and larger products, and a cache in place.

In contrast to `heartvoice.models.heartmula`, query, key and value are one product, gate and up are another, a norm is
one kernel, a rotation is three, and a layer's output is added to its input in place. Results differ by rounding only:
in bf16 sums are rounded once, and a norm is scaled before it is rounded, not after.

No call waits for the device. A call can be repeated, because it does not read its own output.

Source: heartmula spec, sections 4 to 7.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn, split_with_sizes
from torch.nn.functional import linear, rms_norm, scaled_dot_product_attention, silu

from heartvoice.models.heartmula import HeartMuLa
from heartvoice.models.llama import KeyValue, KVCache, Layer, RMSNorm, Transformer
from heartvoice.models.sampling import mask_special, sample_inverse_cdf

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Index of the layer, query [R, T, H, hd], key and value [R, T, Hkv, hd] to [R, T, H * hd]; keeps key and value."""


@dataclass(frozen=True)
class FrameInputs:
    """The inputs of a frame of R rows, apart from weights, cache and codes. There are R places for songs.

    Unused places and rows hold any valid values. A guided song has two rows; any other song has its row twice.
    """

    given: Tensor
    """int64 [R, K]: the previous frame. Values below 0 stand for the last frame of the song's slot."""
    uniform: Tensor
    """float32 [R, K] in [0, 1 - 2^-23]."""
    slot: Tensor
    """int64 [R]: the song's slot."""
    top_k: Tensor
    """int64 [R], at least 1."""
    allow_eos: Tensor
    """int64 [R]: 0 forbids EOS."""
    cond_row: Tensor
    """int64 [R]."""
    uncond_row: Tensor
    """int64 [R]."""
    position: Tensor
    """int64 [R]: cached positions of each row, which is the position of this frame."""
    row_song: Tensor
    """int64 [R]: place of the song that owns each row."""
    temperature: Tensor
    """float32 [R], above 0."""
    cfg_scale: Tensor
    """float32 [R]."""

    def first(self, rows: int) -> FrameInputs:
        """Views of the first rows and places."""
        return FrameInputs(*(getattr(self, field.name)[:rows] for field in dataclasses.fields(self)))


class FrameNetwork:
    """Makes frames with the weights of a `HeartMuLa`, which stays usable."""

    def __init__(self, network: HeartMuLa, cache: KVCache, eos_id: int) -> None:
        """Pack the weights layer by layer, so that there is never a second copy.

        Args:
            network: loaded, on the device of `cache`.
            cache: of the backbone: keys and values of every row.
            eos_id: the id that ends a song.
        """
        self._network, self._cache, self._eos_id = network, cache, eos_id
        sizes, head = network.sizes, network.audio_head
        self._backbone = PackedTransformer(network.backbone, cache.max_positions)
        self._depth = PackedTransformer(network.decoder, sizes.audio_num_codebooks)
        self._depth_cache = KVCache(
            sizes.decoder, cache.rows, sizes.audio_num_codebooks, dtype=head.dtype, device=head.device
        )

    def frame(self, inputs: FrameInputs, last: Tensor, *, width: int, max_top_k: int) -> Tensor:
        """Feed every row's last frame and draw the next one.

        Args:
            inputs: of the cache's first R rows.
            last: int64 [slots, K], the last frame of each slot.
            width: cached positions that attention reads, more than any row's `position`.
            max_top_k: at least every `top_k`.

        Returns:
            int64 [R, K], -1 for a song whose logits are not finite.
        """
        network, rows = self._network, len(inputs.position)
        # A failed frame is -1, and may be fed before the host has seen it.
        codes = torch.where(inputs.given >= 0, inputs.given, last[inputs.slot]).clamp(min=0)
        x = network.embed_frames(codes)[inputs.row_song][:, None]
        attend = CacheAttention(self._cache.past(width, rows), inputs.position)
        hidden = self._backbone(x, inputs.position[:, None], attend)
        return self._draw_frame(hidden, inputs, max_top_k)

    def _draw_frame(self, hidden: Tensor, inputs: FrameInputs, max_top_k: int) -> Tensor:
        """Sample codebook after codebook from the backbone's output [R, 1, E]; see `HeartMuLa.sample_frame`."""
        network = self._network
        codes: list[Tensor] = []
        total = torch.zeros(len(hidden), device=hidden.device)  # of all logits: finite if each is
        blank = torch.zeros(len(hidden), network.sizes.audio_vocab_size, device=hidden.device)
        forbidden = mask_special(blank, network.sizes.codebook_size, self._eos_id, inputs.allow_eos)  # 0 or -inf

        def draw(logits: Tensor) -> None:
            guided = network.guide(logits, inputs.cond_row, inputs.uncond_row, inputs.cfg_scale)
            total.add_(guided.sum(-1))
            uniform, allowed = inputs.uniform[:, len(codes)], guided + forbidden
            codes.append(sample_inverse_cdf(allowed, inputs.temperature, inputs.top_k, uniform, max_top_k=max_top_k))

        draw(network.codebook0_logits(hidden[:, 0]))
        for book in range(1, network.sizes.audio_num_codebooks):
            entering = network.embed_code(codes[-1], book - 1)[inputs.row_song][:, None]
            if book == 1:  # the first pass takes positions 0 and 1
                entering = torch.cat([hidden, entering], dim=1)
            places = slice(book + 1 - entering.shape[1], book + 1)
            out = self._depth(network.projection(entering), places, DepthAttention(self._depth_cache, places))
            draw(network.depth_logits(out[:, -1], book))
        return torch.stack(codes, dim=1).masked_fill(~total.isfinite()[:, None], -1)


class PackedTransformer:
    """A `Transformer` with two products for five in each layer. It shares the transformer's weights."""

    def __init__(self, network: Transformer, n_positions: int) -> None:
        """Pack the layers and tabulate the rotations of `n_positions` positions."""
        self._layers = [_PackedLayer(layer) for layer in cast(Iterable[Layer], network.layers)]
        self._norm = network.norm
        device = network.norm.scale.device
        self._rotations = torch.complex(*network.rotary(torch.arange(n_positions, device=device)))  # [P, hd/2]

    def __call__(self, x: Tensor, positions: Tensor | slice, attend: Attend) -> Tensor:
        """Run T new positions of every row.

        Args:
            x: [R, T, E]; overwritten.
            positions: int64 [R, T], or the same T for every row.
            attend: gets every layer's queries, keys and values.

        Returns:
            [R, T, E] after the final norm, in the dtype of `x`.
        """
        rotation = self._rotations[positions].unsqueeze(-2)  # [(R,) T, 1, hd/2]
        for index, layer in enumerate(self._layers):
            query, key, value = layer.before(x, rotation)
            x = layer.after(x, attend(index, query, key, value))
        return _normed(x, self._norm)


class _PackedLayer:
    """One layer, without its attention."""

    def __init__(self, layer: Layer) -> None:
        attention, mlp = layer.attn, layer.mlp
        self._head_dim = attention.head_dim
        self._heads = (attention.num_heads, attention.num_kv_heads, attention.num_kv_heads)
        self._norms = layer.sa_norm, layer.mlp_norm
        self._qkv = _pack(attention.q_proj, attention.k_proj, attention.v_proj)
        self._gate_up = _pack(mlp.w1, mlp.w3)
        self._out, self._down = attention.output_proj.weight, mlp.w2.weight

    def before(self, x: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[R, T, E] to query, key and value [R, T, heads, hd]."""
        heads = linear(_normed(x, self._norms[0]), self._qkv).reshape(*x.shape[:2], -1, self._head_dim)
        n_query, n_key, n_value = self._heads
        turned, value = split_with_sizes(heads, [n_query + n_key, n_value], dim=2)
        query, key = split_with_sizes(_rotated(turned, rotation), [n_query, n_key], dim=2)
        return query, key, value

    def after(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The layer's output from its input [R, T, E], which is overwritten, and its attention's output."""
        _add_product(x, mixed, self._out)
        gate, up = linear(_normed(x, self._norms[1]), self._gate_up).chunk(2, dim=-1)
        return _add_product(x, silu(gate) * up, self._down)


class CacheAttention:
    """PyTorch's fused attention of one new position of every row to a static cache."""

    def __init__(self, past: Sequence[KeyValue], position: Tensor) -> None:
        """Prepare the mask for the cache's first R rows and W positions [R, Hkv, W, hd]; `position` is int64 [R]."""
        self._past = past
        keys = past[0][0]
        self._place = torch.arange(len(position), device=position.device), slice(None), position
        seen = torch.arange(keys.shape[2], device=position.device) <= position[:, None]
        # As a bias, because every layer would convert a bool mask to one.
        self._bias = torch.zeros_like(seen, dtype=keys.dtype).masked_fill(~seen, -torch.inf)[:, None, None]

    def __call__(self, index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attend`."""
        keys, values = self._past[index]
        keys[self._place], values[self._place] = key[:, 0], value[:, 0]
        # The query heads of a kv head become its query positions, so that kernels need no groups.
        grouped = query.reshape(len(query), keys.shape[1], -1, query.shape[-1])
        bias = self._bias.expand(-1, keys.shape[1], grouped.shape[2], -1)
        mixed: Tensor = scaled_dot_product_attention(grouped, keys, values, attn_mask=bias)
        return mixed.reshape(len(query), 1, -1)


class DepthAttention:
    """The depth decoder's attention as plain products, because heads of 384 are too wide for the fused kernels.

    All rows have the same positions, so that only the future within one pass is masked.
    """

    def __init__(self, cache: KVCache, places: slice) -> None:
        """Attend from the positions `places`, which are new."""
        self._cache, self._places = cache, places

    def __call__(self, index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """See `Attend`."""
        rows, length, heads, width = query.shape
        keys, values = self._cache.past(self._places.stop, rows)[index]
        keys[:, :, self._places], values[:, :, self._places] = key.transpose(1, 2), value.transpose(1, 2)
        grouped = (query * width**-0.5).transpose(1, 2).reshape(rows, keys.shape[1], -1, width)  # [R, Hkv, G*T, hd]
        scores = grouped @ keys.transpose(-1, -2)
        if length > 1:
            seen = torch.ones(length, self._places.stop, dtype=torch.bool, device=query.device)
            future = ~seen.tril(self._places.start).repeat(heads // keys.shape[1], 1)  # [G*T, P]
            scores = scores.masked_fill(future, -torch.inf)
        mixed: Tensor = scores.softmax(-1, dtype=torch.float32).to(query.dtype) @ values
        return mixed.reshape(rows, heads, length, width).transpose(1, 2).flatten(2)


def _normed(x: Tensor, norm: RMSNorm) -> Tensor:
    return rms_norm(x, x.shape[-1:], norm.scale, norm.eps)


def _add_product(x: Tensor, left: Tensor, weight: Tensor) -> Tensor:
    """Add left [R, T, F] times weight [E, F] to x [R, T, E], in place and rounded once; returns x."""
    x.view(-1, x.shape[-1]).addmm_(left.reshape(-1, left.shape[-1]), weight.t())
    return x


def _rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the pairs (2j, 2j + 1) of the last axis in float32: `rope.apply_rope` as one complex product."""
    pairs = torch.view_as_complex(x.to(torch.float32).reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)


def _pack(*layers: nn.Linear) -> Tensor:
    """Stack the weights of layers with the same input [sum of out, in]; the layers' weights become views."""
    packed = torch.cat([layer.weight.detach() for layer in layers])
    parts = split_with_sizes(packed, [layer.out_features for layer in layers])
    for layer, part in zip(layers, parts, strict=True):
        layer.weight = nn.Parameter(part, requires_grad=False)
    return packed
