"""Drawing a code from logits: the sampler of our graphs, and the reference's, which ties it to the golden vectors.

Both keep the k largest logits (ties at the k-th place keep more) and draw from their softmax. Source: heartmula spec,
section 6; design, decision 13.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mask_special(logits: Tensor, codebook_size: int, eos_id: int, allow_eos: Tensor) -> Tensor:
    """Forbid ids that the codec does not have.

    The reference lets every special id through, id 8192 among them, and then fails in the codec. An `eos_id` below
    `codebook_size` is an ordinary code and stays.

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
    """Draw by inverting the cumulative distribution: one uniform number for one id.

    Args:
        logits: float32 [S, V]; -inf is never drawn.
        temperature: float32 [S], above 0.
        top_k: int64 [S], at least 1; more than V counts as V.
        uniform: float32 [S] in [0, 1 - 2^-23]; 0 gives the lowest kept id.
        max_top_k: largest `top_k`, if the caller knows it; reading it from the tensor waits for the device.

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
    # Entries at or below the target are passed over. `kept > 0` changes nothing in exact arithmetic; it protects from
    # a device whose parallel sum is not monotone.
    reached = (cumulative > uniform[:, None] * cumulative[:, -1:]) & (kept > 0)
    return reached.to(torch.int32).argmax(-1)


def reference_probabilities(logits: Tensor, k: int, temperature: float) -> Tensor:
    """The reference's distribution: float32 [..., V] for logits [..., V]; `k` more than V counts as V."""
    scaled = logits / temperature
    threshold = scaled.topk(min(k, scaled.shape[-1]), dim=-1).values[..., -1:]
    return scaled.masked_fill(scaled < threshold, -torch.inf).softmax(-1)


def sample_reference(logits: Tensor, k: int, temperature: float, exponential: Tensor) -> Tensor:
    """The reference's draw: argmax of p / q with q exponential of rate 1.

    Args:
        logits: float32 [B, V].
        k: ids to keep; ties at the k-th place keep more.
        temperature: above 0.
        exponential: float32 [B, V], independent draws.

    Returns:
        int64 [B, 1].
    """
    return (reference_probabilities(logits, k, temperature) / exponential).argmax(-1, keepdim=True)
