"""Lower bounds of the networks' work: bytes that a frame reads, operations that a window needs.

They are computed from the sizes, for every preset. Source: heartmula spec, section 11; heartcodec spec, 8.
"""

from __future__ import annotations

from dataclasses import dataclass

from heartvoice.config.presets import HeartCodecConfig, HeartMuLaConfig, TransformerConfig
from heartvoice.models.heartcodec.estimator import mlp_width
from heartvoice.models.heartcodec.scalar import DILATIONS


def layer_values(sizes: TransformerConfig) -> int:
    """Number of weights of one layer, norms included."""
    kv_width = sizes.num_kv_heads * sizes.head_dim
    attention = 2 * sizes.embed_dim * (sizes.embed_dim + kv_width)
    return attention + 3 * sizes.embed_dim * sizes.intermediate_dim + 2 * sizes.embed_dim


@dataclass(frozen=True)
class FrameBytes:
    """Bytes that one frame of HeartMuLa reads; all rows share every weight."""

    backbone: int
    depth: int
    """Depth decoder and projection, which are read again in each of their passes."""
    heads: int
    cache: int
    """Keys and values of all rows."""

    @property
    def total(self) -> int:
        """Sum of all bytes."""
        return self.backbone + self.depth + self.heads + self.cache


def frame_bytes(
    sizes: HeartMuLaConfig, *, positions: int, rows: int, weight_bytes: float = 4, cache_bytes: int = 4
) -> FrameBytes:
    """Compute the bytes that one frame reads.

    Args:
        sizes: sizes of the network.
        positions: cached positions of each row.
        rows: two for a guided song.
        weight_bytes: bytes per weight.
        cache_bytes: bytes per cached value.
    """
    backbone, decoder = sizes.backbone, sizes.decoder
    passes = sizes.audio_num_codebooks - 1
    depth = decoder.num_layers * layer_values(decoder) + backbone.embed_dim * decoder.embed_dim
    heads = sizes.audio_vocab_size * (backbone.embed_dim + passes * decoder.embed_dim)
    cached = 2 * backbone.num_layers * backbone.num_kv_heads * backbone.head_dim
    return FrameBytes(
        backbone=round(backbone.num_layers * layer_values(backbone) * weight_bytes),
        depth=round(passes * depth * weight_bytes),
        heads=round(heads * weight_bytes),
        cache=rows * positions * cached * cache_bytes,
    )


def prefill_flop(sizes: HeartMuLaConfig, *, positions: int, rows: int) -> float:
    """Operations of a prompt in the backbone, without the frame after it."""
    backbone = sizes.backbone
    linear = 2 * backbone.num_layers * layer_values(backbone) * positions
    attention = 2 * backbone.num_layers * positions**2 * backbone.embed_dim  # half of the square is masked
    return float(rows * (linear + attention))


def flow_flop(sizes: HeartCodecConfig, *, frames: int, rows: int) -> float:
    """Operations of one evaluation of the flow's velocity for `frames` latent frames."""
    width = sizes.num_attention_heads * sizes.attention_head_dim
    stacks = ((sizes.num_layers, width), (sizes.num_layers_2, 2 * width))
    values = sum(count * (4 * size**2 + 3 * size * mlp_width(size)) for count, size in stacks)
    for width_in, width_out in (
        (sizes.in_channels, width),
        (sizes.in_channels + width, 2 * width),
        (2 * width, sizes.out_channels),
    ):
        values += 3 * width_in * width_out + width_out**2
    attention = sum(4 * count * frames**2 * size for count, size in stacks)
    return float(rows * (2 * frames * values + attention))


def decoder_flop(sizes: HeartCodecConfig, *, frames: int, channels: int = 2) -> float:
    """Operations of the scalar decoder for `frames` latent frames per audio channel."""
    width = sizes.init_channel << len(sizes.upsample_factors)
    length = frames
    values = sizes.delay_kernel_size * sizes.latent_hidden_dim * width * length
    for factor, kernel in zip(sizes.upsample_factors, sizes.upsample_kernel_sizes, strict=True):
        values += kernel * width * (width // 2) * length
        width, length = width // 2, length * factor
        values += len(DILATIONS) * (sizes.res_kernel_size + 1) * width**2 * length
    if sizes.num_samples > 1:
        length *= sizes.num_samples
        values += sizes.default_kernel_size * width**2 * length
    values += sizes.default_kernel_size * width * sizes.num_bands * length
    return 2.0 * channels * values
