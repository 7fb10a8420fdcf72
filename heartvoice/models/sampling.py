"""Sampling of codes from logits: our graphs' sampler, and the reference's for comparison with golden vectors.

Both keep the k largest logits (more if the k-th place is tied) and sample from their softmax. Source: heartmula spec,
section 6; design, decision 13.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mask_special(logits: Tensor, codebook_size: int, eos_id: int, allow_eos: Tensor) -> Tensor:
    """Mask ids that the codec does not have.

    The reference allows every special id, including 8192, and then fails in the codec. An `eos_id` below
    `codebook_size` is an ordinary code and is not masked.

    Args:
        logits: float32 [S, V].
        codebook_size: first id that is not a code.
        eos_id: the id that ends a song.
        allow_eos: int64 or bool [S]; 0 forbids `eos_id` too.

    Returns:
        float32 [S, V] with -inf at forbidden ids.
    """
    ids = torch.arange(logits.shape[-1], device=logits.device)
    special = ids >= codebook_size
    forbidden = special & ~((ids == eos_id) & (allow_eos[:, None] != 0))
    return logits.masked_fill(forbidden, -torch.inf)


def sample_inverse_cdf(
    logits: Tensor, temperature: Tensor, top_k: Tensor, uniform: Tensor, *, max_top_k: int | None = None
) -> Tensor:
    """Sample by inverting the cumulative distribution: one uniform number per id.

    Args:
        logits: float32 [S, V]; -inf is never sampled.
        temperature: float32 [S], above 0.
        top_k: int64 [S], at least 1; values above V count as V.
        uniform: float32 [S] in [0, 1 - 2^-23]; 0 selects the lowest kept id.
        max_top_k: largest `top_k`, if known; reading it from the tensor synchronises with the device.

    Returns:
        int64 [S].
    """
    scaled = logits / temperature[:, None]
    size = scaled.shape[-1]
    widest = int(top_k.max()) if max_top_k is None else max_top_k
    largest = scaled.topk(min(widest, size), dim=-1).values  # [S, k]
    threshold = largest.gather(1, (top_k.clamp(max=largest.shape[-1]) - 1)[:, None])
    kept = (scaled - largest[:, :1]).exp().where(scaled >= threshold, 0.0)
    cumulative = kept.cumsum(-1)
    # Select the first entry above the target. `kept > 0` changes nothing in exact arithmetic; it guards against devices
    # whose parallel sum is not monotone.
    reached = (cumulative > uniform[:, None] * cumulative[:, -1:]) & (kept > 0)
    return reached.to(torch.int32).argmax(-1)


def reference_probabilities(logits: Tensor, k: int, temperature: float) -> Tensor:
    """The reference's distribution: float32 [..., V] of logits [..., V]; `k` above V counts as V."""
    scaled = logits / temperature
    threshold = scaled.topk(min(k, scaled.shape[-1]), dim=-1).values[..., -1:]
    return scaled.masked_fill(scaled < threshold, -torch.inf).softmax(-1)


def sample_reference(logits: Tensor, k: int, temperature: float, exponential: Tensor) -> Tensor:
    """Sample as the reference does: argmax of p / q, with q exponential of rate 1.

    Args:
        logits: float32 [B, V].
        k: ids to keep; ties at the k-th place keep more.
        temperature: above 0.
        exponential: float32 [B, V], independent draws.

    Returns:
        int64 [B, 1].
    """
    return (reference_probabilities(logits, k, temperature) / exponential).argmax(-1, keepdim=True)
