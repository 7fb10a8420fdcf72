"""The scalar decoder with its last layers at the rate of their input, for training: the same function, in less time.

The decoder repeats each sample and then convolves at 48 kHz. All phases of a repeated sample together are one
convolution of the samples before they are repeated, with fewer products and wider channels.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad, prelu

from heartvoice.models.heartcodec.scalar import Conv, PostProcessor, ScalarModel


def decode(model: ScalarModel, latents: Tensor) -> Tensor:
    """Run the decoder of a causal model on latents that are rounded already.

    Args:
        model: with repeated samples, `num_samples` above 1.
        latents: [B, latent_hidden_dim, T].

    Returns:
        [B, T * latent_hop], equal to the model's own but for rounding errors.

    Raises:
        TypeError: the model repeats no samples.
    """
    *stages, post, last = model.decoder
    if not isinstance(post, PostProcessor) or not isinstance(last, Conv):
        raise TypeError(f"model: expected one that repeats samples, got {type(post).__name__} before the last layer")
    hidden = latents
    for stage in stages:
        hidden = stage(hidden)
    phases = _repeated(hidden, post.conv, post.factor)
    phases = prelu(phases, post.activation.weight)
    samples = _at_all_phases(phases, last, post.factor)  # [B, phase, T]
    return samples.transpose(1, 2).flatten(1)


def _repeated(x: Tensor, conv: Conv, factor: int) -> Tensor:
    """Repeat and convolve [B, C, T]: [B, factor * C', T], the phases of channel 0 and then those of the others."""
    lags, _ = _places(factor, conv.kernel_size[0], x.device)
    weight = torch.einsum("pkl,ock->opcl", lags, conv.weight)
    weight = weight.reshape(-1, conv.in_channels, lags.shape[2])
    bias = None if conv.bias is None else conv.bias.repeat_interleave(factor)
    return conv1d(pad(x, (lags.shape[2] - 1, 0)), weight, bias)


def _at_all_phases(x: Tensor, conv: Conv, factor: int) -> Tensor:
    """Convolve [B, C * factor, T], whose phases are in order, at the fine rate: [B, phase, T] of the one output."""
    lags, sources = _places(factor, conv.kernel_size[0], x.device)
    weight = torch.einsum("pkl,pkq,ck->pcql", lags, sources, conv.weight[0])
    weight = weight.reshape(factor, -1, lags.shape[2])
    bias = None if conv.bias is None else conv.bias.expand(factor)
    return conv1d(pad(x, (lags.shape[2] - 1, 0)), weight, bias)


@lru_cache(maxsize=8)
def _places(factor: int, kernel: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where tap k of a causal convolution reads for an output of phase p.

    Returns:
        One-hot [p, k, lag] of the coarse sample, the present one last, and one-hot [p, k, phase] within it.
    """
    n_lags = 1 + -(-(kernel - 1) // factor)
    lags, sources = torch.zeros(factor, kernel, n_lags), torch.zeros(factor, kernel, factor)
    for phase in range(factor):
        for tap in range(kernel):
            coarse, source = divmod(phase - (kernel - 1 - tap), factor)
            lags[phase, tap, n_lags - 1 + coarse] = 1.0
            sources[phase, tap, source] = 1.0
    return lags.to(device), sources.to(device)
