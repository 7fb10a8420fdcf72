"""Estimates the memory of serving a preset where CPU and GPU share memory, from sizes alone.

Nothing is measured. Weights and caches are counted from the networks' tensors. Activations are lower bounds: the
simultaneous tensors of the largest layer. Allowances are assumptions. Needs torch.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from typing import Literal

from heartvoice.config.presets import (
    SEPARATORS,
    AnySeparator,
    HeartCodecConfig,
    Preset,
    RoformerConfig,
    SeparatorConfig,
    SpleeterConfig,
    SwiftF0Config,
    TransformerConfig,
)
from heartvoice.config.svc import BigvganConfig
from heartvoice.contracts.constants import LATENTS_PER_FRAME
from heartvoice.contracts.models import MODELS, SEPARATOR_GRAPHS
from heartvoice.contracts.tensors import LATENT_FRAME, WINDOW
from heartvoice.models.heartcodec.estimator import mlp_width
from heartvoice.models.load import AnyConfig, build_module
from heartvoice.stages.lm.cache import round_up
from heartvoice.stages.lm.engine_torch import POSITION_BLOCK
from heartvoice.stages.svc.vocoder import VOCODER_CHUNK, context_frames

Kind = Literal["counted", "lower bound", "allowance"]
CodecPrecision = Literal["fp32", "bf16"]
BYTES = {"fp32": 4, "bf16": 2}
HTDEMUCS_VALUES = 41_984_456
"""Weights of one published htdemucs, for machines without demucs; a test counts them."""
LIVE = 3
"""Simultaneous tensors of one layer: input, output and residual."""
SNAKE_LIVE = 5
"""The vocoder's activation runs at twice the rate: its input, and two tensors of twice the length."""
CONTEXT_BYTES = 500 * 2**20
"""Assumed bytes of one CUDA context with cuBLAS and cuDNN."""
STUB_BYTES = 60 * 10**6
"""Assumed bytes of one Python model's process without its networks; 54 MB were measured on x86-64."""
TORCH_BYTES = 600 * 10**6
"""Assumed bytes of PyTorch's host libraries in the one process that imports it."""


@dataclass(frozen=True)
class MemoryItem:
    """One line of the table."""

    name: str
    n_bytes: int
    kind: Kind
    note: str


def footprint(preset: Preset, *, songs: int, codec: CodecPrecision, pool_bytes: int = 0) -> list[MemoryItem]:
    """Estimate the memory of a server with all models loaded.

    Args:
        preset: its sizes.
        songs: slots of the language model, each with keys and values of a guided song of full length.
        codec: precision of the codec's flow and decoder.
        pool_bytes: size of Triton's memory pools.
    """
    return [
        *_weights(preset, codec),
        *_working(preset, songs, codec),
        MemoryItem("Triton's memory pools", pool_bytes, "counted", "pinned and CUDA"),
        *_processes(),
    ]


def total_bytes(parts: Iterable[MemoryItem]) -> int:
    """Return the sum of the lines."""
    return sum(part.n_bytes for part in parts)


@lru_cache
def values(sizes: AnyConfig) -> int:
    """Return the number of a network's weights that inference needs.

    Raises:
        ImportError: torch is missing; or demucs (as on aarch64), and the separator is not the published one.
    """
    published = isinstance(sizes, SeparatorConfig) and replace(sizes, n_models=1) == SEPARATORS["htdemucs"]
    if isinstance(sizes, SeparatorConfig) and published and importlib.util.find_spec("demucs") is None:
        return sizes.n_models * HTDEMUCS_VALUES
    module = build_module(sizes, decode_only=isinstance(sizes, HeartCodecConfig))
    return sum(tensor.numel() for tensor in module.state_dict().values())


def kv_bytes(sizes: TransformerConfig, *, positions: int, rows: int = 2) -> int:
    """Return the bytes of one song's keys and values in bf16; a guided song has two rows."""
    per_position = 2 * sizes.num_layers * sizes.num_kv_heads * sizes.head_dim * BYTES["bf16"]
    return rows * round_up(positions, POSITION_BLOCK) * per_position


def decoder_bytes(sizes: HeartCodecConfig, *, frames: int, item: int, channels: int = 2) -> int:
    """Return the bytes of the scalar decoder's largest layer for a number of latent frames per channel."""
    width = sizes.init_channel << len(sizes.upsample_factors)
    levels = [width * frames]
    for factor in sizes.upsample_factors:
        width, frames = width // 2, frames * factor
        levels.append(width * frames)
    return LIVE * channels * max(*levels, width * frames * sizes.num_samples) * item


def flow_bytes(sizes: HeartCodecConfig, *, frames: int, item: int, rows: int = 2) -> int:
    """Return the bytes of the flow's largest layer: the wide stack's gated MLP or stored attention scores."""
    width = 2 * sizes.num_attention_heads * sizes.attention_head_dim
    scores = 2 * (width // sizes.attention_head_dim) * frames**2
    return rows * max(LIVE * frames * mlp_width(width), scores) * item


def vocoder_bytes(sizes: BigvganConfig, *, frames: int) -> int:
    """Return the bytes of the vocoder's largest layer in float32 for a number of mel frames."""
    lengths = accumulate(sizes.upsample_rates, lambda length, rate: length * rate, initial=frames)
    widths = (sizes.upsample_initial_channel >> level for level in range(len(sizes.upsample_rates) + 1))
    return SNAKE_LIVE * max(width * length for width, length in zip(widths, lengths, strict=True)) * BYTES["fp32"]


def segment_bytes(sizes: AnySeparator) -> int:
    """Return the bytes of the separator graph's input for one segment in float32."""
    if isinstance(sizes, SpleeterConfig):
        return 2 * sizes.frames * sizes.bins * BYTES["fp32"]
    if isinstance(sizes, RoformerConfig):
        return sizes.n_frames * sizes.n_features * BYTES["fp32"]
    spectrum = 4 * (sizes.nfft // 2) * _spectrum_frames(sizes)
    return (2 * sizes.segment_samples + spectrum) * BYTES["fp32"]


def separator_bytes(sizes: AnySeparator) -> int:
    """Return the bytes of the separator's widest layer, with inputs and outputs, for one segment.

    htdemucs' is its first encoder before the gate, Spleeter's the first convolution or the last transposed one, a
    RoFormer's a feed-forward layer or the scores of attention over time, before and after softmax.
    """
    if isinstance(sizes, SpleeterConfig):
        first = sizes.filters[0] * (sizes.frames // 2) * (sizes.bins // 2)
        return LIVE * first * BYTES["fp32"] + (1 + len(sizes.sources)) * segment_bytes(sizes)
    if isinstance(sizes, RoformerConfig):
        rows = len(sizes.bands) * sizes.n_frames
        widest = max((4 + 4 + 1) * sizes.dim * rows, 2 * sizes.heads * sizes.n_frames * rows)
        return widest * BYTES["fp32"] + (1 + len(sizes.stems)) * segment_bytes(sizes)
    first = 2 * sizes.channels * (sizes.nfft // 2 // 4) * _spectrum_frames(sizes)
    return LIVE * first * BYTES["fp32"] + (1 + len(sizes.sources)) * segment_bytes(sizes)


def _spectrum_frames(sizes: SeparatorConfig) -> int:
    return -(-sizes.segment_samples // (sizes.nfft // 4))


def _separator_name(sizes: AnySeparator) -> str:
    if isinstance(sizes, RoformerConfig):
        return f"weights of {sizes.name}"
    return "Spleeter's weights" if isinstance(sizes, SpleeterConfig) else f"{sizes.n_models} htdemucs' weights"


def _weights(preset: Preset, codec: CodecPrecision) -> list[MemoryItem]:
    svc = preset.svc
    lines: list[tuple[str, AnyConfig, Literal["fp32", "bf16"]]] = [
        ("HeartMuLa's weights", preset.lm, "bf16"),
        ("HeartCodec's weights", preset.codec, codec),
        (_separator_name(preset.separator), preset.separator, "fp32"),
        ("content encoder's weights (Whisper)", svc.whisper, "fp32"),
        ("converter's flow and regulator", svc.dit, "fp32"),
        ("vocoder's weights (BigVGAN)", svc.vocoder, "fp32"),
        ("style encoder's weights (CAMPPlus)", preset.style, "fp32"),
        ("speaker encoder's weights", preset.speaker, "fp32"),
    ]
    if not isinstance(preset.f0, SwiftF0Config):
        lines.append(("F0 network's weights", preset.f0, "fp32"))
    counted = {name: values(sizes) for name, sizes, _ in lines}
    counted["converter's flow and regulator"] += values(svc.regulator)
    return [
        MemoryItem(
            name, counted[name] * BYTES[precision], "counted", f"{counted[name] / 1e6:,.1f} M values, {precision}"
        )
        for name, _, precision in lines
    ]


def _working(preset: Preset, songs: int, codec: CodecPrecision) -> list[MemoryItem]:
    item = BYTES[codec]
    one = kv_bytes(preset.lm.backbone, positions=preset.max_positions)
    window = LATENTS_PER_FRAME * WINDOW.max
    past, future = context_frames(preset.svc.vocoder)
    chunk = past + VOCODER_CHUNK + future
    batch = min(songs, SEPARATOR_GRAPHS[preset.separator.engine].max_batch_size)
    return [
        MemoryItem(
            f"keys and values, {songs} song{'s' if songs > 1 else ''}", songs * one, "counted",
            f"{one / 1e9:.2f} GB a song: 2 rows of {preset.max_positions} positions, bf16",
        ),
        MemoryItem(
            "codec's flow, working", flow_bytes(preset.codec, frames=window, item=item), "lower bound",
            f"2 rows of {window} latent frames, {codec}",
        ),
        MemoryItem(
            "codec's decoder, working", decoder_bytes(preset.codec, frames=LATENT_FRAME.max, item=item), "lower bound",
            f"2 channels of {LATENT_FRAME.max} latent frames, {codec}",
        ),
        MemoryItem(
            "separator, working", batch * separator_bytes(preset.separator), "lower bound",
            f"{batch} segment{'s' if batch > 1 else ''} of "
            f"{preset.separator.segment_samples / preset.separator.samplerate:.1f} s, fp32",
        ),
        MemoryItem(
            "vocoder, working", vocoder_bytes(preset.svc.vocoder, frames=chunk), "lower bound",
            f"{chunk} mel frames, fp32",
        ),
    ]  # fmt: skip


def _processes() -> list[MemoryItem]:
    stubs = [model for model in MODELS.values() if model.backend == "python"]
    with_context = [model.name for model in stubs if model.kind == "KIND_AUTO"]
    return [
        MemoryItem(
            "CUDA contexts", (1 + len(with_context)) * CONTEXT_BYTES, "allowance",
            f"the server, {', '.join(with_context)}: {CONTEXT_BYTES / 2**20:.0f} MiB each",
        ),
        MemoryItem(
            "processes of Python models", len(stubs) * STUB_BYTES + TORCH_BYTES, "allowance",
            f"{len(stubs)} of {STUB_BYTES / 1e6:.0f} MB, and PyTorch in one",
        ),
    ]  # fmt: skip


def gigabytes(n_bytes: float) -> str:
    """Format bytes as gigabytes for the tables."""
    return f"{math.ceil(n_bytes / 1e7) / 100:.2f}"
